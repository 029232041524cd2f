"""Linear codes of 64-bit words: check bits that correct one error or two.

Every bit of a word has a *column* of as many bits as the code has check bits, all different and of odd weight. The check bits have
the columns of weight 1. The *syndrome* is the XOR of the columns of the bits that err:

    zero                            no error seen, or errors that cancel
    that of a correctable pattern   these bits are flipped back: right, unless more bits err
    anything else                   detected. One error more than the code corrects always is: its syndrome has the other parity

The codes:

    SECDED   (72,64): corrects one error and detects two (Hsiao, IBM J. Res. Dev. 14, 1970). The columns of the data bits are the
             56 of weight 3 and eight of weight 5. Three errors are mostly miscorrected
    DECTED   (79,64): corrects two errors and detects three. The BCH code with roots alpha and alpha^3 in GF(2^7), shortened, with
             an overall parity bit (Bose and Ray-Chaudhuri, Information and Control 3, 1960). Four errors may be miscorrected
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words

Checks = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

_DATA_BITS = 64


class _Corrections(NamedTuple):
    """The decision for each syndrome.

    Attributes:
        flips: Data bits that are flipped back.
        correctable: Syndromes of the patterns that are corrected.
        detected: Syndromes of all others but zero.
    """

    flips: Words
    correctable: Mask
    detected: Mask


@dataclass(frozen=True)
class LinearCode:
    """A code of 64-bit words.

    Attributes:
        columns: Of the data bits 0..63; check bit i has the column 1 << i.
        check_bits: Check bits of a word.
        errors: How many errors of a word are corrected.
    """

    columns: tuple[int, ...]
    check_bits: int
    errors: int

    def encode(self, words: Words) -> Checks:
        """Return the check bits of each word, (n,) uint16."""
        split = words.view(np.uint8).reshape(-1, 8)
        checks: Checks = self._checks[0][split[:, 0]]
        for i in range(1, 8):
            checks ^= self._checks[i][split[:, i]]
        return checks

    def decode(self, words: Words, checks: Checks) -> tuple[Words, Mask, Mask]:
        """Correct errors.

        Args:
            words: Data words as read, (n,) uint64.
            checks: Their check bits as read, (n,) uint16.

        Returns:
            (corrected words, which were corrected, which are detected as wrong).
        """
        syndrome = self.encode(words) ^ checks
        found = self._corrections
        return words ^ found.flips[syndrome], found.correctable[syndrome], found.detected[syndrome]

    @cached_property
    def _checks(self) -> Checks:
        """(8, 256): the check bits of a word that has this value in byte i and zeros elsewhere."""
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.uint16)
        columns = np.array(self.columns, dtype=np.uint16).reshape(8, 8)
        return np.array([np.bitwise_xor.reduce(bits * of_byte, axis=1) for of_byte in columns], dtype=np.uint16)

    @cached_property
    def _corrections(self) -> _Corrections:
        columns = np.array([*self.columns, *(1 << row for row in range(self.check_bits))])
        masks = np.zeros(columns.size, dtype=np.uint64)
        masks[:_DATA_BITS] = np.uint64(1) << np.arange(_DATA_BITS, dtype=np.uint64)
        flips = np.zeros(1 << self.check_bits, dtype=np.uint64)
        correctable = np.zeros(flips.size, dtype=np.bool_)
        for count in range(1, self.errors + 1):
            places = np.array(list(combinations(range(columns.size), count)))
            syndromes = np.bitwise_xor.reduce(columns[places], axis=1)
            flips[syndromes] = np.bitwise_xor.reduce(masks[places], axis=1)
            correctable[syndromes] = True
        detected = ~correctable
        detected[0] = False
        return _Corrections(flips, correctable, detected)


def _hsiao_columns() -> tuple[int, ...]:
    rotations = (((0b11111 << turn) | (0b11111 >> (8 - turn))) & 0xFF for turn in range(8))
    return (*(sum(1 << row for row in rows) for rows in combinations(range(8), 3)), *rotations)


_BCH_GENERATOR = 0b100001101110111
"""(x^7 + x^3 + 1)(x^7 + x^3 + x^2 + x + 1), the minimal polynomials of alpha and alpha^3."""


def _bch_columns() -> tuple[int, ...]:
    """Return the remainders of x^14 … x^77, each with a parity bit that makes its weight odd."""
    columns, remainder = [], 1
    for power in range(14 + _DATA_BITS):
        if power >= 14:
            columns.append(remainder | (1 - remainder.bit_count() % 2) << 14)
        remainder <<= 1
        if remainder >> 14:
            remainder ^= _BCH_GENERATOR
    return tuple(columns)


SECDED = LinearCode(_hsiao_columns(), check_bits=8, errors=1)
DECTED = LinearCode(_bch_columns(), check_bits=15, errors=2)
