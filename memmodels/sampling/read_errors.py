"""Read errors drawn block by block. `draw_block` is the only function that makes them.

`SimulatedMemory.read` calls it for a whole region; the engine's kernels call it while a block of weights is in the cache. Both get
the same bits, because both ask for the same (trial, write, read, block).

Streams are nested: seed / die / array / trial / write / read / term / block. Below the stream of a block, each segment of its
dyadic masks and each group of Poisson hits has a stream of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.np.numpy_support import from_dtype

from weakcell.memmodels.address import BLOCK_BITS, BLOCK_WORDS
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.dyadic import GENERATORS, SEGMENT_WORDS, fill_random, flip_dyadic
from weakcell.memmodels.sampling.pointers import data_ptr, records_at, shorts_at, words_at
from weakcell.memmodels.sampling.sampler import TERM
from weakcell.memmodels.sampling.streams import child_stream, word_at

assert BLOCK_BITS == 1 << 16, "a Poisson hit names its cell of a block by 16 bits"

_U0, _U1, _U6, _U63 = np.uint64(0), np.uint64(1), np.uint64(6), np.uint64(63)
_HITS, _EXTRA_HITS = np.uint64(8), np.uint64(9)
"""Streams of a term's Poisson hits in a block; streams below 8 are those of its segments."""

_RANDOM, _FLIPS, _CELLS, _EXTRA, _FAILING = (8 * BLOCK_WORDS * row for row in range(5))
"""Byte offsets of the workspace's rows: random words, flips, cells, hits on cells of one value, failing weak cells."""

_term_at = records_at(from_dtype(TERM))


class _TermDraw(NamedTuple):
    """One term, drawn over `words` words from word `begin` of a block.

    term: a record of type TERM. table_ptr: Poisson tables. stream: of the term in this block. work_ptr: the workspace.
    """

    term: Any
    table_ptr: int
    stream: int
    begin: int
    words: int
    work_ptr: int


@compiled
def popcount_word(word):  # type: ignore[no-untyped-def]
    """Count the set bits of a word; LLVM turns this into its popcount instruction."""
    word = word - ((word >> _U1) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def count_bits(words):  # type: ignore[no-untyped-def]
    """Count the set bits of an array of words."""
    count = 0
    for i in range(words.size):
        count += popcount_word(words[i])
    return count


@compiled
def new_workspace():  # type: ignore[no-untyped-def]
    """Allocate the workspace of `draw_block`; one serves many blocks."""
    return np.empty((5, BLOCK_WORDS), dtype=np.uint64)


@compiled
def read_stream(source, trial, write, read):  # type: ignore[no-untyped-def]
    """Return the stream of one read of a region; source: a row of type SOURCE."""
    stream = child_stream(child_stream(source.stream, np.uint64(trial)), np.uint64(write))
    return child_stream(stream, np.uint64(read))


@compiled
def poisson_count(word, low, first, stop, table_ptr):  # type: ignore[no-untyped-def]
    """Return `low` + the number of table entries first..stop that are <= the random word, by bisection."""
    entries, a, b = words_at(table_ptr, stop), first, stop
    if a < b and word < entries[a]:
        return low
    while a < b:
        middle = (a + b) >> 1
        if entries[middle] <= word:
            a = middle + 1
        else:
            b = middle
    return low + a - first


@compiled
def _xor_dyadic_mask(draw, cells_ptr, flips_ptr):  # type: ignore[no-untyped-def]
    """XOR the term's dyadic mask into the segments of the block that hold the wanted words."""
    end = draw.begin + draw.words
    for segment in range(draw.begin // SEGMENT_WORDS, (end + SEGMENT_WORDS - 1) // SEGMENT_WORDS):
        stream, offset = child_stream(draw.stream, np.uint64(segment)), 8 * SEGMENT_WORDS * segment
        flip_dyadic(draw.term, stream, cells_ptr + offset, flips_ptr + offset, SEGMENT_WORDS)


@compiled
def _xor_poisson_hits(draw, which, name, flips_ptr):  # type: ignore[no-untyped-def]
    """Flip a Poisson number of cells of the block, drawn with replacement, four to a random word.

    which: the term's Poisson table. name: of the hits' stream.
    """
    first, stop = draw.term.first[which], draw.term.first[which + 1]
    if first == stop:
        return
    stream, random_ptr = child_stream(draw.stream, name), draw.work_ptr + _RANDOM
    hits = poisson_count(word_at(stream, _U0), draw.term.low[which], first, stop, draw.table_ptr)
    words, cells = words_at(flips_ptr, BLOCK_WORDS), shorts_at(random_ptr, 4 * BLOCK_WORDS)
    for done in range(0, hits, 4 * BLOCK_WORDS):
        count = min(hits - done, 4 * BLOCK_WORDS)
        vectors = (count + 4 * GENERATORS - 1) // (4 * GENERATORS)
        fill_random(child_stream(stream, np.uint64(1 + done)), random_ptr, vectors * GENERATORS)
        for i in range(count):
            cell = np.uint64(cells[i])
            words[np.int64(cell >> _U6)] ^= _U1 << (cell & _U63)


@compiled
def _flip_term(draw, cells_ptr, flips_ptr):  # type: ignore[no-untyped-def]
    """XOR a term's independent errors into a whole block, of which only the wanted words matter.

    cells_ptr: what the block holds before these errors; read only if the term is asymmetric. Both addresses are of the block.
    """
    begin, n, term = draw.begin, draw.words, draw.term
    wanted, stored = words_at(flips_ptr + 8 * begin, n), words_at(cells_ptr + 8 * begin, n)
    if term.levels:
        _xor_dyadic_mask(draw, cells_ptr, flips_ptr)
    elif term.last[0] | term.last[1]:
        on_zero, change = term.last[0], term.last[1]
        for i in range(n):
            wanted[i] ^= on_zero ^ (stored[i] & change)
    _xor_poisson_hits(draw, 0, _HITS, flips_ptr)
    if term.first[1] < term.first[2]:
        # hits that count on one stored value only go into a mask of their own: looking up each hit's cell would be slower
        extra = words_at(draw.work_ptr + _EXTRA + 8 * begin, n)
        for i in range(n):
            extra[i] = _U0
        _xor_poisson_hits(draw, 1, _EXTRA_HITS, draw.work_ptr + _EXTRA)
        invert_mask = term.invert_mask
        for i in range(n):
            wanted[i] ^= extra[i] & (stored[i] ^ invert_mask)


@compiled
def _flip_weak_cells(draw, written_ptr, to_one_ptr, to_zero_ptr, flips_ptr):  # type: ignore[no-untyped-def]
    """Flip weak cells that hold the value they do not prefer, with the term's rate (the same for both values).

    written_ptr, to_one_ptr, to_zero_ptr: addresses of the wanted words. flips_ptr: address of the block.
    """
    begin, n, failing_ptr = draw.begin, draw.words, draw.work_ptr + _FAILING
    failing, wanted = words_at(failing_ptr + 8 * begin, n), words_at(flips_ptr + 8 * begin, n)
    for i in range(n):
        failing[i] = _U0
    _flip_term(draw, failing_ptr, failing_ptr)
    stored, ones, zeros = words_at(written_ptr, n), words_at(to_one_ptr, n), words_at(to_zero_ptr, n)
    for i in range(n):
        cells = stored[i] ^ wanted[i]
        wanted[i] ^= ((~cells & ones[i]) | (cells & zeros[i])) & failing[i]


@compiled
def words_in_block(source, block):  # type: ignore[no-untyped-def]
    """Return (first, n): words first..first + n of the region lie in this block."""
    first = max(block * BLOCK_WORDS - source.first_word, 0)
    return first, min((block + 1) * BLOCK_WORDS - source.first_word, source.words) - first


@compiled
def block_range(source):  # type: ignore[no-untyped-def]
    """Return (first, stop): the blocks of the memory that the region touches."""
    if source.words == 0:
        return 0, 0
    return source.first_word // BLOCK_WORDS, (source.first_word + source.words - 1) // BLOCK_WORDS + 1


@compiled
def draw_block(source, stream, block, part, workspace):  # type: ignore[no-untyped-def]
    """Write the flips of one block of a region at one read (read bits XOR written bits) into `part`.

    Args:
        source: A row of type SOURCE.
        stream: Of the read, from `read_stream`.
        block: Number of the block in the memory.
        part: The region's words in this block (`words_in_block`), uint64; overwritten.
        workspace: From `new_workspace`; its contents do not matter.
    """
    first, n = words_in_block(source, block)
    begin, work_ptr = source.first_word + first - block * BLOCK_WORDS, data_ptr(workspace)
    # drawing covers whole blocks, so a partial block goes through the workspace
    written_ptr, flips_ptr = source.written + 8 * first, data_ptr(part) if n == BLOCK_WORDS else work_ptr + _FLIPS
    stored, flips, cells = words_at(written_ptr, n), words_at(flips_ptr + 8 * begin, n), words_at(work_ptr + _CELLS + 8 * begin, n)
    if source.matches_written:
        for i in range(n):
            flips[i] = _U0
    else:
        baseline = words_at(source.baseline + 8 * first, n)
        for i in range(n):
            flips[i] = baseline[i] ^ stored[i]
    for number in range(source.count):
        term = _term_at(source.terms, number)
        term_stream = child_stream(child_stream(stream, term.stream), np.uint64(block))
        draw = _TermDraw(term, source.table, term_stream, begin, n, work_ptr)
        if term.weak_row >= 0:
            to_one_ptr = source.weak + 8 * (term.weak_row * source.words + first)
            _flip_weak_cells(draw, written_ptr, to_one_ptr, to_one_ptr + 8 * source.words, flips_ptr)
            continue
        if term.asymmetric:
            for i in range(n):
                cells[i] = stored[i] ^ flips[i]
        _flip_term(draw, work_ptr + _CELLS, flips_ptr)
    if n < BLOCK_WORDS:
        for i in range(n):  # a single assignment would need an error text, which takes long to compile
            part[i] = flips[i]
    if first + n == source.words:
        part[n - 1] &= source.last_mask


@compiled
def fill_flips(sources, trial, write, read, flips):  # type: ignore[no-untyped-def]
    """Write the flips of a whole region at one read into `flips`; return how many there are. See `sampler.draw_region`."""
    source, count, workspace = sources[0], 0, new_workspace()
    stream = read_stream(source, trial, write, read)
    start, stop = block_range(source)
    for block in range(start, stop):
        first, n = words_in_block(source, block)
        draw_block(source, stream, block, flips[first : first + n], workspace)
        count += count_bits(flips[first : first + n])
    return count
