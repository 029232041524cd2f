"""SECDED(72,64): eight check bits that correct one error of a 72-bit word and detect two (Hsiao, IBM J. Res. Dev. 14, 1970).

Every bit of a word has a column of eight bits, all different and of odd weight: the eight check bits those of weight 1, the data
bits the 56 of weight 3 and eight of weight 5. The *syndrome* is the XOR of the columns of the bits that err:

    zero                            no error seen (or four and more that cancel)
    odd weight, one of the columns  that bit is flipped back: right for one error, a miscorrection for most triples
    anything else                   detected: two errors always are, since an even number of odd columns has even weight
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words

Bytes = npt.NDArray[np.uint8]

CHECK_BITS = 8
_ROTATIONS = [((0b11111 << turn) | (0b11111 >> (8 - turn))) & 0xFF for turn in range(8)]
DATA_COLUMNS: Bytes = np.array([sum(1 << row for row in rows) for rows in combinations(range(8), 3)] + _ROTATIONS, dtype=np.uint8)
"""Columns of data bits 0..63; check bit i has the column 1 << i."""


def _checks_of_bytes() -> Bytes:
    """Return (8, 256) the check bits of a word that has this value in byte i and zeros elsewhere."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.array([np.bitwise_xor.reduce(bits * DATA_COLUMNS[8 * i : 8 * i + 8], axis=1) for i in range(8)], dtype=np.uint8)


_CHECKS = _checks_of_bytes()
_FIX = np.zeros(256, dtype=np.uint64)
_FIX[DATA_COLUMNS] = np.uint64(1) << np.arange(64, dtype=np.uint64)
_CORRECTABLE = np.isin(np.arange(256), [*DATA_COLUMNS, *(1 << row for row in range(CHECK_BITS))])
_DETECTED = ~_CORRECTABLE
_DETECTED[0] = False


def encode(words: Words) -> Bytes:
    """Return the eight check bits of each 64-bit word."""
    split = words.view(np.uint8).reshape(-1, 8)
    checks: Bytes = _CHECKS[0][split[:, 0]]
    for i in range(1, 8):
        checks ^= _CHECKS[i][split[:, i]]
    return checks


def decode(words: Words, checks: Bytes) -> tuple[Words, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Correct single errors.

    Args:
        words: Data words as read, (n,) uint64.
        checks: Their check bits as read, (n,) uint8.

    Returns:
        (corrected words, which were corrected, which are detected as wrong).
    """
    syndrome = encode(words) ^ checks
    return words ^ _FIX[syndrome], _CORRECTABLE[syndrome], _DETECTED[syndrome]
