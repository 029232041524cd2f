"""Standard output and error on terminals of any encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys

_PLAIN = {
    "…": "...", "±": "+-", "×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "°": " deg ", "µ": "u", "μ": "u", "²": "^2",
    "√": "sqrt ", "≤": "<=", "≥": ">=", "≈": "~", "→": "->", "‘": "'", "’": "'", "“": '"', "”": '"', "Φ": "Phi",
    "λ": "lambda", "σ": "sigma",
}  # fmt: skip
_HANDLER = "weakcell-plain"
_STDERR = 2


def accept_any_text() -> None:
    """Let standard output and error write any text: what their encoding lacks becomes plain ASCII."""
    codecs.register_error(_HANDLER, _replace)
    while (handle := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass  # closed by the caller: a file of results would get its number, and what libraries print
    os.close(handle)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in lacking), error.end
