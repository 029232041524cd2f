"""Arguments of a kernel as machine code gets them: one row of int64 words, and the types that the code depends on.

An integer is its own word; a floating-point number is the word of the same bits. An array is the address of its NumPy object. A
tuple is its parts, one after another.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

C_CONTIGUOUS, FORTRAN_CONTIGUOUS, WRITEABLE = 0x1, 0x2, 0x400
"""NumPy's flags of an array."""

_OTHERS = 0x100 | WRITEABLE
"""Flags besides contiguity that distinguish machine code: aligned and writeable."""

_FLAGS = C_CONTIGUOUS | FORTRAN_CONTIGUOUS | _OTHERS
_FLAG_KEYS = tuple(
    flags & (_OTHERS | (C_CONTIGUOUS if flags & C_CONTIGUOUS else FORTRAN_CONTIGUOUS)) for flags in range(_FLAGS + 1)
)
"""The part of an array's kind that its flags are; arrays contiguous in both orders count as C-contiguous."""


def flatten(arguments: tuple[Any, ...], kinds: list[object], words: list[int]) -> None:
    """Append the types of the arguments, and the words that represent them.

    A type is a class; an array is its dtype, number of axes and flags; a tuple is its class, its length and its parts.
    """
    for x in arguments:  # runs before every call: the most frequent cases come first
        kind = type(x)
        if kind is int or kind is bool:
            kinds.append(kind)
            words.append(x)
        elif kind is np.ndarray:
            kinds += x.dtype, x.ndim, _FLAG_KEYS[x.flags.num & _FLAGS]
            words.append(id(x))
        elif isinstance(x, tuple):
            kinds += kind, len(x)
            flatten(x, kinds, words)
        elif isinstance(x, np.integer | np.bool_):
            kinds.append(kind)
            words.append(int(x) if kind is not np.uint64 else int(x) - (int(x) >> 63 << 64))
        elif isinstance(x, float):
            kinds.append(float)
            words.extend(struct.unpack("q", struct.pack("d", x)))
        else:
            raise TypeError(f"a kernel takes no {kind.__name__}")
