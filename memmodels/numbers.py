"""Numbers in texts of users and files: what Python's own parsers accept without a word is refused here."""

from __future__ import annotations

import math


class NumberRangeError(ValueError):
    """A number that a float64 would turn into 0 or infinity."""


def parse_number(text: str) -> float:
    """Return the number that a text says.

    Raises:
        NumberRangeError: A float64 would turn the number into 0 or infinity.
        ValueError: The text is no number, or has digits other than 0 to 9.
    """
    if not text.isascii():  # float() takes the digits of every script
        raise ValueError(f"{text[:40]!r} has characters other than ASCII")
    value = float(text)
    digits = set(text.lower().partition("e")[0]) & set("0123456789")
    if value == 0.0 and digits - {"0"}:
        raise NumberRangeError(f"{text[:40]} is too near to 0 to be stored; the smallest number is 1e-307")
    if math.isinf(value) and digits:
        raise NumberRangeError(f"{text[:40]} is too large to be stored; the largest number is 1e308")
    return value


def parse_integer(text: str, base: int = 10) -> int:
    """Return the whole number that a text says; ValueError if it is none, or has digits other than ASCII ones."""
    if not text.isascii():
        raise ValueError(f"{text[:40]!r} has characters other than ASCII")
    return int(text, base)
