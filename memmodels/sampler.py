"""Flips drawn block by block: the frozen record that a kernel draws from, and the one function that draws.

`draw_block` is the only place where read errors are made. `SimulatedMemory.read` calls it for a whole region, the engine's
kernels call it while a block of weights is in cache; both get the same bits because both ask for (trial, write, read, block).
Streams are named seed / die / array / term / trial / write / read / block; a block's levels
and throws have streams of their own below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words
from memmodels.rates import Rate, plan_rate
from memmodels.streams import name_stream, next_word, start, word_at

VERSION = 1
"""The sampling format: the same version, seed and key give the same bits for ever. Recorded with every result."""

_U0, _U1, _U63, _ALL = np.uint64(0), np.uint64(1), np.uint64(63), np.uint64(0xFFFFFFFFFFFFFFFF)
_U6, _U16, _U16_MASK = np.uint64(6), np.uint64(16), np.uint64(0xFFFF)


class Sampler(NamedTuple):
    """A region that describes itself as arrays; T terms are drawn at each read.

    stream: of (seed, die, array). first_word: of the region in its memory. last_mask: the cells of the last word.
    written: the bits that were asked to be stored. held: what the cells would return without the terms drawn here. sound: both are
    the same.
    term_streams (T,): the terms' names. symmetric (T,): one mask for both stored values, else one for p01 and one for p10.
    weak (2U, words), weak_row (T,): masks of the cells that can read 1 for 0 and 0 for 1, for terms whose weak cells fail only at
    some reads; their first row, -1 where any cell may err.
    inverted, levels, numerators, table_low (2T,), table_first (2T + 1,), table: the rates' recipes (`rates.Rate`).
    """

    stream: np.uint64
    first_word: int
    last_mask: np.uint64
    written: Words
    held: Words
    sound: bool
    term_streams: npt.NDArray[np.uint64]
    symmetric: npt.NDArray[np.bool_]
    weak: npt.NDArray[np.uint64]
    weak_row: npt.NDArray[np.int64]
    inverted: npt.NDArray[np.bool_]
    levels: npt.NDArray[np.int64]
    numerators: npt.NDArray[np.int64]
    table_low: npt.NDArray[np.int64]
    table_first: npt.NDArray[np.int64]
    table: npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A term that is drawn at each read: its number (its name in the stream), its rates, and its weak cells if it has any."""

    number: int
    p01: float
    p10: float
    weak: tuple[Words, Words] | None = None


def make_sampler(
    stream: np.uint64, first_word: int, bits: int, written: Words, held: Words, terms: tuple[Drawn, ...] = ()
) -> Sampler:
    """The sampler of a region of `bits` cells; see `Sampler`."""
    rates: list[Rate] = [plan_rate(p) for term in terms for p in (term.p01, term.p10)]
    tables = [rate.throws.cumulative for rate in rates]
    weak = [mask for term in terms if term.weak for mask in term.weak]
    rows = np.cumsum([0, *(2 if term.weak else 0 for term in terms)])[:-1]
    return Sampler(
        stream=stream,
        first_word=first_word,
        last_mask=np.uint64((1 << ((bits - 1) % 64 + 1)) - 1),
        written=written,
        held=held,
        sound=bool(np.array_equal(held, written)),
        term_streams=np.array([term.number for term in terms], dtype=np.uint64),
        symmetric=np.array([term.p01 == term.p10 for term in terms], dtype=np.bool_),
        weak=np.array(weak, dtype=np.uint64).reshape(len(weak), written.size),
        weak_row=np.array([row if term.weak else -1 for row, term in zip(rows, terms, strict=True)], dtype=np.int64),
        inverted=np.array([rate.inverted for rate in rates], dtype=np.bool_),
        levels=np.array([rate.levels for rate in rates], dtype=np.int64),
        numerators=np.array([rate.numerator for rate in rates], dtype=np.int64),
        table_low=np.array([rate.throws.low for rate in rates], dtype=np.int64),
        table_first=np.cumsum([0, *map(len, tables)], dtype=np.int64),
        table=np.concatenate([np.empty(0, np.uint64), *tables]),
    )


def blocks_of(first_word: int, words: int) -> range:
    """The blocks of the memory that a region touches."""
    return range(first_word // BLOCK_WORDS, (first_word + words - 1) // BLOCK_WORDS + 1) if words else range(0)


@numba.njit(cache=True, inline="always")
def popcount_word(word):  # type: ignore[no-untyped-def]
    """Set bits of a word; LLVM turns this into its popcount instruction."""
    word = word - ((word >> _U1) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(cache=True, nogil=True)
def count_bits(words):  # type: ignore[no-untyped-def]
    """Set bits of an array of words."""
    count = 0
    for i in range(words.size):
        count += popcount_word(words[i])
    return count


@numba.njit(cache=True, nogil=True)
def poisson_count(state, low, first, stop, table):  # type: ignore[no-untyped-def]
    """Number of throws: `low` + how many entries of table[first:stop] are <= a random word."""
    if first == stop:
        return low
    word = next_word(state)
    a, b = first, stop
    while a < b:
        middle = (a + b) >> 1
        if table[middle] <= word:
            a = middle + 1
        else:
            b = middle
    return low + a - first


@numba.njit(cache=True, nogil=True)
def _flip_levels(stream, levels, numerator, begin, words):  # type: ignore[no-untyped-def]
    """XOR Bernoulli(numerator / 2^levels) bits into `words`, which start at word `begin` of the block."""
    mask = np.zeros(words.size, dtype=np.uint64)
    for level in range(levels):
        first = np.uint64(level * BLOCK_WORDS + begin)
        if (numerator >> level) & 1:
            for i in range(words.size):
                mask[i] |= word_at(stream, first + np.uint64(i))
        else:
            for i in range(words.size):
                mask[i] &= word_at(stream, first + np.uint64(i))
    for i in range(words.size):
        words[i] ^= mask[i]


@numba.njit(cache=True, inline="always")
def _throw(word, words):  # type: ignore[no-untyped-def]
    """Flip the cell of a whole block that the low 16 bits of `word` name."""
    words[np.int64((word & _U16_MASK) >> _U6)] ^= _U1 << (word & _U63)


@numba.njit(cache=True, nogil=True)
def _flip_throws(state, throws, words):  # type: ignore[no-untyped-def]
    """XOR `throws` cells of a whole block, with replacement, four to a random word."""
    for _ in range(throws >> 2):
        word = next_word(state)
        _throw(word, words)
        _throw(word >> _U16, words)
        _throw(word >> np.uint64(32), words)
        _throw(word >> np.uint64(48), words)
    if throws & 3:
        word = next_word(state)
        for _ in range(throws & 3):
            _throw(word, words)
            word >>= _U16


@numba.njit(cache=True, nogil=True)
def _flip_throws_in_part(state, throws, begin, words):  # type: ignore[no-untyped-def]
    """The same throws where `words` are only part of the block, from word `begin`: throws beside it are dropped."""
    lowest, cells = np.uint64(begin * 64), np.uint64(words.size * 64)
    word = _U0
    for i in range(throws):
        word = next_word(state) if i & 3 == 0 else word >> _U16
        place = (word & _U16_MASK) - lowest
        if place < cells:
            words[np.int64(place >> _U6)] ^= _U1 << (place & _U63)


@numba.njit(cache=True, nogil=True)
def _flip_bernoulli(sampler, recipe, stream, begin, words):  # type: ignore[no-untyped-def]
    """XOR independent Bernoulli bits of recipe `recipe` into `words`, which start at word `begin` of the block."""
    if sampler.inverted[recipe]:
        for i in range(words.size):
            words[i] ^= _ALL
    levels = sampler.levels[recipe]
    if levels:
        _flip_levels(name_stream(stream, np.uint64(2 * recipe)), levels, sampler.numerators[recipe], begin, words)
    first, stop = sampler.table_first[recipe], sampler.table_first[recipe + 1]
    if stop > first:
        state = np.empty(4, dtype=np.uint64)
        start(state, name_stream(stream, np.uint64(2 * recipe + 1)))
        throws = poisson_count(state, sampler.table_low[recipe], first, stop, sampler.table)
        if words.size == BLOCK_WORDS:
            _flip_throws(state, throws, words)
        else:
            _flip_throws_in_part(state, throws, begin, words)


@numba.njit(cache=True, nogil=True)
def _flip_polar(sampler, term, stream, begin, written, flips):  # type: ignore[no-untyped-def]
    """Cells that hold 0 flip with p01, those that hold 1 with p10: both masks are drawn, then combined on the cells themselves."""
    to_one = np.zeros(flips.size, dtype=np.uint64)
    to_zero = np.zeros(flips.size, dtype=np.uint64)
    _flip_bernoulli(sampler, 2 * term, stream, begin, to_one)
    _flip_bernoulli(sampler, 2 * term + 1, stream, begin, to_zero)
    for i in range(flips.size):
        cells = written[i] ^ flips[i]
        flips[i] ^= (~cells & to_one[i]) | (cells & to_zero[i])


@numba.njit(cache=True, nogil=True)
def _flip_weak(sampler, term, stream, begin, written, weak_one, weak_zero, flips):  # type: ignore[no-untyped-def]
    """Weak cells that hold the value they do not prefer flip with the term's rate, the same for both values."""
    failing = np.zeros(flips.size, dtype=np.uint64)
    _flip_bernoulli(sampler, 2 * term, stream, begin, failing)
    for i in range(flips.size):
        cells = written[i] ^ flips[i]
        flips[i] ^= ((~cells & weak_one[i]) | (cells & weak_zero[i])) & failing[i]


@numba.njit(cache=True, nogil=True)
def draw_block(sampler, trial, write, read, block, flips):  # type: ignore[no-untyped-def]
    """The flips of one block of a region at one read: read bits XOR written bits, into the block's part of `flips`.

    flips: uint64, one per word of the region. Returns (first, n): words first..first + n of the region lie in this block.
    """
    first = max(block * BLOCK_WORDS - sampler.first_word, 0)
    n = min((block + 1) * BLOCK_WORDS - sampler.first_word, sampler.written.size) - first
    begin = sampler.first_word + first - block * BLOCK_WORDS
    written, held, part = sampler.written[first : first + n], sampler.held[first : first + n], flips[first : first + n]
    if sampler.sound:
        part[:] = _U0
    else:
        for i in range(part.size):
            part[i] = held[i] ^ written[i]
    for term in range(sampler.term_streams.size):
        stream = name_stream(sampler.stream, sampler.term_streams[term])
        stream = name_stream(name_stream(stream, np.uint64(trial)), np.uint64(write))
        stream = name_stream(name_stream(stream, np.uint64(read)), np.uint64(block))
        row = sampler.weak_row[term]
        if row >= 0:
            weak_one, weak_zero = sampler.weak[row, first : first + n], sampler.weak[row + 1, first : first + n]
            _flip_weak(sampler, term, stream, begin, written, weak_one, weak_zero, part)
        elif sampler.symmetric[term]:
            _flip_bernoulli(sampler, 2 * term, stream, begin, part)
        else:
            _flip_polar(sampler, term, stream, begin, written, part)
    if first + n == sampler.written.size:
        part[n - 1] &= sampler.last_mask
    return first, n


@numba.njit(cache=True, nogil=True)
def draw_region(sampler, trial, write, read, flips):  # type: ignore[no-untyped-def]
    """The flips of the whole region at one read into `flips` (uint64, one per word); returns how many there are."""
    words, count = sampler.written.size, 0
    if words:
        for block in range(sampler.first_word // BLOCK_WORDS, (sampler.first_word + words - 1) // BLOCK_WORDS + 1):
            first, n = draw_block(sampler, trial, write, read, block, flips)
            count += count_bits(flips[first : first + n])
    return count


assert BLOCK_BITS == 1 << 16, "throws name a cell of a block by 16 bits"
