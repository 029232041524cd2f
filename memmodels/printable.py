"""Text from files of others, made fit for a terminal, a page, a figure or a file of UTF-8."""

from __future__ import annotations

import json
import re
from typing import Any

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and end of line; marks and overrides of the direction; separators of lines; surrogates."""


def printable(text: str) -> str:
    """Return the text with its control characters as escapes, such as \\x1b; tabs and ends of lines stay."""
    return _CONTROLS.sub(_escape, text)


def printable_name(name: str) -> str:
    """Return a name in one line: control characters, tabs, ends of lines and bytes that are not UTF-8 as escapes."""
    return re.sub("[\t\n]", _escape, printable(name))


def printable_json(content: Any) -> str:
    """Return content as JSON in one line, its control characters as JSON's own escapes."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(content, ensure_ascii=False))


def escape_surrogates(text: str) -> str:
    """Return text that UTF-8 can hold: a byte of a file's name that is not UTF-8 (a surrogate in Python) becomes \\udcff.

    In JSON this is an escape that gives the same name again.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
