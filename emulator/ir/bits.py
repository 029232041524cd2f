"""±1 values as bits, 64 channels to a word: put together and taken apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weakcell.emulator.kernels.entry_points import pack


def pack_channels(plus: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """(..., C) booleans (True = +1) -> (..., ceil(C/64)) words, LSB first, spare bits 0."""
    channels = plus.shape[-1]
    words = np.zeros((*plus.shape[:-1], -(-channels // 64)), dtype=np.uint64)
    pack(plus.reshape(-1, channels), words.reshape(-1, words.shape[-1]))
    return words


def unpack_channels(words: npt.NDArray[np.uint64], channels: int) -> npt.NDArray[np.int8]:
    """(..., ceil(C/64)) words -> (..., C) values +1 and -1 (int8)."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")[..., :channels]
    return (bits.astype(np.int8) << 1) - 1
