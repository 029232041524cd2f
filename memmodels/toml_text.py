"""TOML text: read it, and write keys and values."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from weakcell.memmodels.numbers import NumberRangeError, parse_number
from weakcell.memmodels.printable import escape_surrogates

_MOST_PARTS = 100
_LONG_KEY = re.compile(rf"""(?<![\w.-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_MOST_PARTS}}}""")


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text says. Python's parser takes hours for a dotted key of 100,000 parts, so such keys are refused.

    Raises:
        ValueError: It is not TOML, has a key of too many parts, or a number that a float64 would turn into 0 or infinity.
        RecursionError: It is nested too deeply.
    """
    if long := _LONG_KEY.search(text):
        line = text.count("\n", 0, long.start()) + 1
        raise ValueError(f"a key has more than {_MOST_PARTS} parts (at line {line}, column 1)")

    def parse_float(number: str) -> float:
        try:
            return parse_number(number)
        except NumberRangeError as error:
            raise ValueError(f"{error} (at line {text.count(chr(10), 0, text.find(number)) + 1}, column 1)") from None

    return tomllib.loads(text, parse_float=parse_float)


def format_value(value: object) -> str:
    """Return a value as TOML; floats with all their digits.

    Raises:
        TypeError: TOML has no form for the value.
    """
    if hasattr(value, "tolist"):  # NumPy arrays and numbers
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(escape_surrogates(str(value)), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{format_key(str(key))} = {format_value(each)}" for key, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(format_value, value))}]"
    raise TypeError(f"TOML cannot hold a {type(value).__name__}")


def format_key(name: str) -> str:
    """Return a name as a TOML key, quoted where it must be."""
    return name if name.isascii() and name.replace("_", "").isalnum() else format_value(name)
