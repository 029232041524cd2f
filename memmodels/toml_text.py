"""Keys and values as TOML text."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping

from weakcell.memmodels.printable import escape_surrogates


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
