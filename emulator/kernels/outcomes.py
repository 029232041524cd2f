"""Sums of ±1 products as faulty weights would make them, drawn from the clean sums by the laws of `emulator/outcomes.py`."""

from __future__ import annotations

import numba
import numpy as np

from memmodels.sampler import name_read
from memmodels.streams import name_stream, word_at

GUIDE_BITS = 6
"""Leading bits of a random word that a law's guide is asked with."""

_BASE, _MATCHES, _MISMATCHES = np.uint64(0x0B), np.uint64(0x0C), np.uint64(0x0D)


@numba.njit(cache=True, nogil=True)
def _invert(law, row, word):  # type: ignore[no-untyped-def]
    """The value that a random word gives by row `row` of a law: low + how many of its entries are <= the word."""
    step = np.int64(law.guide[row, np.int64(word >> np.uint64(64 - GUIDE_BITS))])
    while step < law.cumulative.shape[1] - 1 and law.cumulative[row, step] <= word:
        step += 1
    return law.low[row] + step


@numba.njit(cache=True, nogil=True)
def _moved(more, matches, mismatches, first, second):  # type: ignore[no-untyped-def]
    """Mismatches gained by the cells that err more often than the others: some matches break, some mismatches heal."""
    return _invert(more, matches - more.first, first) - _invert(more, mismatches - more.first, second)


@numba.njit(cache=True, nogil=True)
def draw_mismatches(counts, bits, ones, weight_ones, base, more, at, sampler, trial, write, reads):  # type: ignore[no-untyped-def]
    """Mismatches of one read for every place: counts int32 (R, O), clean -> drawn, in place.

    bits: cells of a sum. ones (R,), weight_ones (O,): 1s of the inputs and of the weights; read where cells that store `at` (0 or
    1) err more often, at -1 where none do. base, more: the two laws. reads (R,): the number of each place's read.
    """
    for r in range(counts.shape[0]):
        stream = name_stream(name_read(sampler, trial, write, reads[r]), np.uint64(sampler.first_word))
        own, first, second = name_stream(stream, _BASE), name_stream(stream, _MATCHES), name_stream(stream, _MISMATCHES)
        for o in range(counts.shape[1]):
            count, k = np.int64(counts[r, o]), np.uint64(o)
            if at >= 0:
                surplus = ones[r] - weight_ones[o]
                wrong = (count - surplus) >> 1 if at else (count + surplus) >> 1
                right = (weight_ones[o] if at else bits - weight_ones[o]) - wrong
                count += _moved(more, right, wrong, word_at(first, k), word_at(second, k))
            counts[r, o] = count + _invert(base, count - base.first, word_at(own, k))
