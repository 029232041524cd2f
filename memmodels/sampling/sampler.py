"""Flips drawn block by block: the frozen record that a kernel draws from, and the one function that draws.

`draw_block` is the only place where read errors are made. `SimulatedMemory.read` calls it for a whole region, the engine's
kernels call it while a block of weights is in cache; both get the same bits because both ask for (trial, write, read, block).
Streams are named seed / die / array / trial / write / read / term / block; the stretches of a block's levels, and its throws, have
streams of their own below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numba
import numpy as np
import numpy.typing as npt
from numba.np.numpy_support import from_dtype

from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS, Words
from weakcell.memmodels.sampling.dyadic import GENERATORS, STRETCH_WORDS, dyadic_steps, fill_random, flip_dyadic
from weakcell.memmodels.sampling.pointers import address_of, records_at, words_at
from weakcell.memmodels.sampling.rates import MAX_LEVELS, plan_rates
from weakcell.memmodels.sampling.streams import name_stream, word_at

VERSION = 2
"""The sampling format: the same version, seed and key give the same bits for ever. Recorded with every result."""

ROOT = 1
"""What all streams lie below. Format 2 draws reads and writes otherwise than format 1, and dies as format 1 did."""

_U0, _U1, _U6, _U63, _ALL = np.uint64(0), np.uint64(1), np.uint64(6), np.uint64(63), np.uint64(0xFFFFFFFFFFFFFFFF)
_COMMON, _MORE = np.uint64(8), np.uint64(9)
"""Names of the streams of a term's throws in a block; those below 8 are its stretches."""


_NONE_WEAK = np.empty((0, 0), dtype=np.uint64)

TERM = np.dtype(
    [
        ("stream", np.uint64),
        ("rates", np.float64, (2,)),
        ("weak_row", np.int64),
        ("polar", np.bool_),
        ("levels", np.int64),
        ("steps", np.uint64, (MAX_LEVELS, 2)),
        ("last", np.uint64, (2,)),
        ("low", np.int64, (2,)),
        ("first", np.int64, (3,)),
        ("unless", np.uint64),
    ],
    align=True,
)
"""A term that is drawn at each read.

stream: its name. rates: p01 and p10, of all cells or of the weak ones. weak_row: the first of its two rows of weak cells, -1 where
any cell may err. polar: whether the rates differ. levels, steps, last: its dyadic masks (`dyadic.py`). low, first: its two Poisson
tables, entries first[i]..first[i + 1] of the region's: throws on all cells, and on the stored bits ^ unless (`rates.Recipe`).
"""


SOURCE = np.dtype(
    [
        ("stream", np.uint64),
        ("last_mask", np.uint64),
        *((name, np.int64) for name in ("first_word", "words", "written", "held", "sound", "terms", "count", "table", "weak")),
    ]
)
"""A sampler as compiled code takes it, one row of a table: its numbers, how many words and terms it has, where its arrays lie."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """A region that describes itself as arrays.

    stream: of (seed, die, array). first_word: of the region in its memory. last_mask: the cells of the last word.
    written: the bits that were asked to be stored. held: what the cells would return without the terms drawn here. sound: both are
    the same.
    terms (T,): of type TERM. table: their Poisson tables. weak (2U, words): masks of the cells that can read 1 for 0, and 0 for 1,
    for terms whose weak cells fail only at some reads.
    """

    stream: np.uint64
    first_word: int
    last_mask: np.uint64
    written: Words
    held: Words
    sound: bool
    terms: npt.NDArray[np.void]
    table: npt.NDArray[np.uint64]
    weak: npt.NDArray[np.uint64]

    @cached_property
    def source(self) -> npt.NDArray[np.void]:
        """The sampler as a table of one row, type SOURCE; whoever takes it keeps the sampler."""
        return sources_of((self,))


def sources_of(samplers: Sequence[Sampler]) -> npt.NDArray[np.void]:
    """A table of type SOURCE; whoever takes it keeps the samplers."""
    rows = []
    for s in samplers:
        written, held, terms, table, weak = (array.ctypes.data for array in (s.written, s.held, s.terms, s.table, s.weak))
        sizes = s.first_word, s.written.size, written, held, s.sound, terms, s.terms.size, table, weak
        rows.append((s.stream, s.last_mask, *sizes))
    return np.array(rows, dtype=np.uint64).view(SOURCE)[:, 0]


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
    weak = [mask for term in terms if term.weak is not None for mask in term.weak]
    records, table = _recorded(tuple((term.number, term.p01, term.p10, term.weak is not None) for term in terms))
    return Sampler(
        stream=stream,
        first_word=first_word,
        last_mask=np.uint64((1 << ((bits - 1) % 64 + 1)) - 1),
        written=np.ascontiguousarray(written),
        held=np.ascontiguousarray(held),
        sound=held is written or bool(np.array_equal(held, written)),
        terms=records,
        table=table,
        weak=np.array(weak) if weak else _NONE_WEAK,
    )


@lru_cache(maxsize=256)
def _recorded(terms: tuple[tuple[int, float, float, bool], ...]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]:
    """Records of terms (number, p01, p10, whether only weak cells err) and their tables: shared by all regions, never changed."""
    records, tables, row = np.zeros(len(terms), dtype=TERM), [np.empty(0, np.uint64)], 0
    for record, (number, p01, p10, weak) in zip(records, terms, strict=True):
        recipe = plan_rates(p01, p10)
        record["stream"], record["rates"], record["polar"] = number, recipe.rates, p01 != p10
        record["weak_row"], row = (row, row + 2) if weak else (-1, row)
        record["levels"], record["unless"] = recipe.levels, 0 if recipe.more_at else _ALL
        record["steps"], record["last"] = dyadic_steps(recipe.numerators, recipe.inverted, recipe.levels, MAX_LEVELS)
        record["low"] = recipe.throws.low, recipe.more.low
        own = recipe.throws.cumulative, recipe.more.cumulative
        record["first"] = np.cumsum([sum(map(len, tables)), *map(len, own)])
        tables.extend(own)
    return records, np.concatenate(tables)


def blocks_of(first_word: int, words: int) -> range:
    """The blocks of the memory that a region touches."""
    return range(first_word // BLOCK_WORDS, (first_word + words - 1) // BLOCK_WORDS + 1) if words else range(0)


@numba.njit(cache=True, nogil=True)
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
def new_room():  # type: ignore[no-untyped-def]
    """Room for `draw_block` to work in: allocated once for many blocks."""
    return np.empty((5, BLOCK_WORDS), dtype=np.uint64)


_term_at = records_at(from_dtype(TERM))


_RANDOM, _FLIPS, _CELLS, _SOME, _FAILING = (8 * BLOCK_WORDS * row for row in range(5))
"""Where in the room lie random words, and blocks of flips, of cells, of throws that count on some cells only, of failing cells."""


@numba.njit(cache=True, nogil=True)
def name_read(source, trial, write, read):  # type: ignore[no-untyped-def]
    """The stream of one read of a region."""
    stream = name_stream(name_stream(source.stream, np.uint64(trial)), np.uint64(write))
    return name_stream(stream, np.uint64(read))


@numba.njit(cache=True, nogil=True)
def poisson_count(word, low, first, stop, table):  # type: ignore[no-untyped-def]
    """Number of throws: `low` + how many of the entries first..stop of the table at an address are <= a random word."""
    entries, a, b = words_at(table, stop), first, stop
    if a < b and word < entries[a]:
        return low
    while a < b:
        middle = (a + b) >> 1
        if entries[middle] <= word:
            a = middle + 1
        else:
            b = middle
    return low + a - first


@numba.njit(cache=True, nogil=True)
def _flip_levels(term, stream, begin, end, cells, flips):  # type: ignore[no-untyped-def]
    """XOR the term's dyadic mask into the stretches of a block that hold its words begin..end."""
    for stretch in range(begin // STRETCH_WORDS, (end + STRETCH_WORDS - 1) // STRETCH_WORDS):
        own, ahead = name_stream(stream, np.uint64(stretch)), 8 * STRETCH_WORDS * stretch
        flip_dyadic(own, term.polar, term.steps, term.levels, term.last, cells + ahead, flips + ahead, STRETCH_WORDS)


@numba.njit(cache=True, nogil=True)
def _throw(term, which, table, stream, flips, random):  # type: ignore[no-untyped-def]
    """Flip a Poisson number of cells of a block, with replacement, four to a random word.

    which: 0 for the throws on all cells, 1 for those on some. random: room for a block of random words.
    """
    first, stop = term.first[which], term.first[which + 1]
    if first == stop:
        return
    throws = poisson_count(word_at(stream, _U0), term.low[which], first, stop, table)
    words, places = words_at(flips, BLOCK_WORDS), words_at(random, BLOCK_WORDS).view(np.uint16)
    for done in range(0, throws, 4 * BLOCK_WORDS):
        count = min(throws - done, 4 * BLOCK_WORDS)
        vectors = (count + 4 * GENERATORS - 1) // (4 * GENERATORS)
        fill_random(name_stream(stream, np.uint64(1 + done)), random, vectors * GENERATORS)
        for i in range(count):
            place = np.uint64(places[i])
            words[np.int64(place >> _U6)] ^= _U1 << (place & _U63)


@numba.njit(cache=True, nogil=True)
def _flip_term(term, table, stream, begin, n, cells, flips, room):  # type: ignore[no-untyped-def]
    """XOR a term's independent errors into the flips of a whole block, of which n words from `begin` are wanted.

    cells: what the block holds before them; read only if the term is polar. Throws that count on some cells only are made apart,
    since to look up the cell of each takes longer than a pass over all.
    """
    wanted, stored, some = words_at(flips + 8 * begin, n), words_at(cells + 8 * begin, n), words_at(room + _SOME + 8 * begin, n)
    if term.levels:
        _flip_levels(term, stream, begin, begin + n, cells, flips)
    elif term.last[0] | term.last[1]:
        on_zero, more = term.last[0], term.last[1]
        for i in range(n):
            wanted[i] ^= on_zero ^ (stored[i] & more)
    _throw(term, 0, table, name_stream(stream, _COMMON), flips, room + _RANDOM)
    if term.first[1] < term.first[2]:
        for i in range(n):
            some[i] = _U0
        _throw(term, 1, table, name_stream(stream, _MORE), room + _SOME, room + _RANDOM)
        unless = term.unless
        for i in range(n):
            wanted[i] ^= some[i] & (stored[i] ^ unless)


@numba.njit(cache=True, nogil=True)
def _flip_weak(term, table, stream, begin, n, written, to_one, to_zero, flips, room):  # type: ignore[no-untyped-def]
    """Weak cells that hold the value they do not prefer flip with the term's rate, the same for both values.

    written, to_one, to_zero: of the n words from `begin` of the block.
    """
    failing, wanted = words_at(room + _FAILING + 8 * begin, n), words_at(flips + 8 * begin, n)
    for i in range(n):
        failing[i] = _U0
    _flip_term(term, table, stream, begin, n, room + _FAILING, room + _FAILING, room)
    stored, ones, zeros = words_at(written, n), words_at(to_one, n), words_at(to_zero, n)
    for i in range(n):
        cells = stored[i] ^ wanted[i]
        wanted[i] ^= ((~cells & ones[i]) | (cells & zeros[i])) & failing[i]


@numba.njit(cache=True, nogil=True)
def words_in(source, block):  # type: ignore[no-untyped-def]
    """(first, n): words first..first + n of the region lie in this block."""
    first = max(block * BLOCK_WORDS - source.first_word, 0)
    return first, min((block + 1) * BLOCK_WORDS - source.first_word, source.words) - first


@numba.njit(cache=True, nogil=True)
def block_range(source):  # type: ignore[no-untyped-def]
    """(first, stop): the blocks of the memory that the region touches."""
    if source.words == 0:
        return 0, 0
    return source.first_word // BLOCK_WORDS, (source.first_word + source.words - 1) // BLOCK_WORDS + 1


@numba.njit(cache=True, nogil=True)
def draw_block(source, stream, block, part, room):  # type: ignore[no-untyped-def]
    """The flips of one block of a region at one read (read bits XOR written bits) into `part`, the words of `words_in`.

    source: a row of type SOURCE. stream: of the read (`name_read`). room: from `new_room`; what is in it does not matter.
    """
    first, n = words_in(source, block)
    begin, work, table = source.first_word + first - block * BLOCK_WORDS, address_of(room), source.table
    written, block_flips = source.written + 8 * first, address_of(part) if n == BLOCK_WORDS else work + _FLIPS
    stored, flips, cells = words_at(written, n), words_at(block_flips + 8 * begin, n), words_at(work + _CELLS + 8 * begin, n)
    if source.sound:
        for i in range(n):
            flips[i] = _U0
    else:
        held = words_at(source.held + 8 * first, n)
        for i in range(n):
            flips[i] = held[i] ^ stored[i]
    for number in range(source.count):
        term = _term_at(source.terms, number)
        own = name_stream(name_stream(stream, term.stream), np.uint64(block))
        if term.weak_row >= 0:
            to_one = source.weak + 8 * (term.weak_row * source.words + first)
            to_zero = to_one + 8 * source.words
            _flip_weak(term, table, own, begin, n, written, to_one, to_zero, block_flips, work)
            continue
        if term.polar:
            for i in range(n):
                cells[i] = stored[i] ^ flips[i]
        _flip_term(term, table, own, begin, n, work + _CELLS, block_flips, work)
    if n < BLOCK_WORDS:
        part[:] = flips
    if first + n == source.words:
        part[n - 1] &= source.last_mask


@numba.njit(cache=True, nogil=True)
def _draw_region(sources, trial, write, read, flips):  # type: ignore[no-untyped-def]
    source, count, room = sources[0], 0, new_room()
    stream = name_read(source, trial, write, read)
    start, stop = block_range(source)
    for block in range(start, stop):
        first, n = words_in(source, block)
        draw_block(source, stream, block, flips[first : first + n], room)
        count += count_bits(flips[first : first + n])
    return count


def draw_region(sampler: Sampler, trial: int, write: int, read: int, flips: Words) -> int:
    """The flips of the whole region at one read into `flips` (uint64, one per word); returns how many there are."""
    return int(_draw_region(sampler.source, trial, write, read, flips))


assert BLOCK_BITS == 1 << 16, "throws name a cell of a block by 16 bits"
