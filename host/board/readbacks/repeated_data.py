"""Find data that repeat other data: lanes that always equal another lane, and runs of bytes that were copied.

A repetition is accepted if chance would produce it with a probability below e^-40. Chance has the error rates that were seen in the
same word and in the same lane. Where different bits had been written, each of them counts ln 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.host.board.readbacks.readback_set import (
    FEWEST_CELLS,
    WIDTHS,
    Artefact,
    Bits,
    Floats,
    PatternReadback,
    count_noun,
    ever_erred,
    format_ranges,
    pack_bits,
    unpack_words,
)
from weakcell.memmodels.address import Words, popcount

_BEYOND_CHANCE = 40.0
_BLOCK = 512
_SEGMENTS = 16
_TELLING = 2048
"""Words of a read-back in which lanes are compared before all of them are."""


class _Span(NamedTuple):
    """A read-back of a part of the array, as bytes.

    Attributes:
        written: what was written.
        erred: the cells that erred at any read.
        read: the first read.
    """

    written: Bits
    erred: Bits
    read: Bits


def _lanes(data: Bits, width: int, rows: npt.NDArray[np.intp]) -> Bits:
    """Return some words of `width` bits as (words, width) bits."""
    words = data[: data.size * 8 // width * (width // 8)].reshape(-1, width // 8)
    return np.unpackbits(words[rows], axis=1, bitorder="little")


def find_repeated_lanes(counted: Sequence[PatternReadback], valid: Words, bits: int) -> list[Artefact]:
    """Find lanes that copy others: in the whole array, or else in segments of it."""
    whole = _lanes_in(counted, valid, 0, bits, bits)
    if whole or bits < _SEGMENTS * 64 * FEWEST_CELLS:
        return whole
    length = bits // _SEGMENTS // 64 * 64
    return [artefact for number in range(_SEGMENTS) for artefact in _lanes_in(counted, valid, number * length, length, bits)]


def _lanes_in(counted: Sequence[PatternReadback], valid: Words, start: int, length: int, bits: int) -> list[Artefact]:
    spans = [_span(one, valid, start, length) for one in counted]
    telling = [max(spans, key=lambda one: int(np.bitwise_count(one.erred).sum()))]
    telling += [one for one in spans if not _is_solid(one)][-1:]
    free, artefacts = np.ones(length, bool), []
    for width in WIDTHS[:8]:
        n = length // width
        if n < FEWEST_CELLS:
            break
        lanes = np.asarray(free[: n * width].reshape(n, width).all(axis=0))
        pairs = [pair for pair in _lane_pairs(telling, width) if lanes[pair[1]]]
        pairs = [pair for pair in pairs if all(_is_copy(span, width, *pair) for span in spans)]
        if not pairs:
            continue
        copies = np.zeros((n, width), bool)
        copies[:, [copy for _, copy in pairs]] = True
        free[: n * width] &= ~copies.reshape(-1)
        cells = np.zeros(bits, bool)
        cells[start : start + copies.size] = copies.reshape(-1)
        text = _lane_text(pairs, width, start, length, int(copies.sum()))
        artefacts.append(Artefact("repeated lane", text, pack_bits(cells, valid.size)))
    return artefacts


def _span(one: PatternReadback, valid: Words, start: int, length: int) -> _Span:
    assert one.errors is not None
    arrays = (one.written, ever_erred(one) & valid, (one.written ^ one.errors[0]) & valid)
    return _Span(*(words.view(np.uint8)[start // 8 : (start + length) // 8] for words in arrays))


def _lane_pairs(spans: Sequence[_Span], width: int) -> list[tuple[int, int]]:
    """Return (lane, its copy) for runs of lanes that come back equal beyond chance.

    Only some telling words of each span are compared.
    """
    marks, evidence = np.zeros(width, np.uint64), np.zeros(width)
    random, written = np.random.default_rng(width), []
    for span in spans:
        words = span.erred[: span.erred.size * 8 // width * (width // 8)].reshape(-1, width // 8)
        rows = np.flatnonzero(words.any(axis=1)) if _is_solid(span) else np.arange(len(words))
        rows = rows[:: max(1, rows.size // _TELLING)][:_TELLING]
        if rows.size == 0:
            continue
        stored, erred, read = (_lanes(data, width, rows) for data in span)
        chance = np.maximum(erred.mean(axis=1)[:, None], erred.mean(axis=0)[None, :])
        evidence = np.maximum(evidence, (-np.log(np.maximum(chance, 1e-12)) * erred).sum(axis=0))
        marks += (read * random.integers(0, 1 << 64, (rows.size, 1), dtype=np.uint64)).sum(axis=0, dtype=np.uint64)
        written.append((stored, (read != read[0]).any(axis=0)))
    pairs: dict[int, int] = {}
    for distance in _distances(marks, np.ones(width, bool)):
        telling_nats = evidence[distance:].copy()
        for stored, alive in written:
            differ = (stored[:, distance:] != stored[:, :-distance]).sum(axis=0) * alive[distance:]
            telling_nats = np.maximum(telling_nats, differ * np.log(2.0))
        for first, end in _runs(marks[distance:] == marks[:-distance]):
            informative = first + distance + np.flatnonzero(telling_nats[first:end] > 0)
            if telling_nats[first:end].sum() < _BEYOND_CHANCE + 2.0 * np.log(width):
                continue
            low, high = max(informative[0] // 8 * 8, first + distance), min(-(-(informative[-1] + 1) // 8) * 8, end + distance)
            pairs |= {copy: copy - distance for copy in range(int(low), int(high)) if copy not in pairs}
    return [(lane, copy) for copy, lane in sorted(pairs.items())]


def _is_solid(span: _Span) -> bool:
    """Return whether the same byte was written everywhere."""
    return not np.any(span.written != span.written[0])


def _is_copy(span: _Span, width: int, lane: int, copy: int) -> bool:
    """Return whether two lanes come back equal in every word."""
    words = span.read[: span.read.size * 8 // width * (width // 8)].reshape(-1, width // 8)
    one, other = (words[:, at // 8] >> np.uint8(at % 8) & np.uint8(1) for at in (lane, copy))
    return bool(np.array_equal(one, other))


def _lane_text(pairs: Sequence[tuple[int, int]], width: int, start: int, length: int, cells: int) -> str:
    copies, originals = (np.array(sorted(side)) for side in ([copy for _, copy in pairs], [lane for lane, _ in pairs]))
    where = "" if start == 0 else f" in bytes {start // 8} to {(start + length) // 8 - 1}"
    return (
        f"{count_noun(copies.size, 'bit')} of every {width} ({format_ranges(copies)}) always came back as "
        f"{format_ranges(np.unique(originals))} did{where}: "
        f"repeated data, not cells of their own ({cells} cells). Each is counted once"
    )


def find_repeated_blocks(counted: Sequence[PatternReadback], valid: Words, bits: int) -> Iterator[Artefact]:
    """Find runs of bytes that came back as other runs did.

    Other bytes were written there, or both runs have the same errors.
    """
    blocks, step = bits // _BLOCK, _BLOCK // 64
    worst = max(counted, key=lambda one: popcount(ever_erred(one) & valid), default=None)
    if worst is None or worst.errors is None or blocks < 4:
        return
    errors, read, written = (
        cells[: blocks * step].reshape(blocks, step)
        for cells in (ever_erred(worst) & valid, worst.written ^ worst.errors[0], worst.written)
    )
    information, need = _information(ever_erred(worst) & valid, bits, blocks), _BEYOND_CHANCE + 2.0 * np.log(blocks)
    number = np.unique(read, axis=0, return_inverse=True)[1].reshape(-1)
    copied = np.zeros(blocks, bool)
    for distance in _distances(number, np.isin(number, number[errors.any(axis=1)])):
        other = np.bitwise_count(written[distance:] ^ written[:-distance]).sum(axis=1) * np.log(2.0)
        telling_nats = np.where(other > 0, other, information[distance:])
        for first, end in _runs((number[distance:] == number[:-distance]) & ~copied[distance:]):
            informative = first + np.flatnonzero(telling_nats[first:end] > 0)
            if telling_nats[first:end].sum() < need:
                continue
            copy = slice(int(informative[0]) + distance, int(informative[-1]) + 1 + distance)
            copied[copy] = True
            cells = np.zeros(valid.size, np.uint64)
            cells[copy.start * step : copy.stop * step] = ~np.uint64(0)
            size, at, back = (
                (copy.stop - copy.start) * _BLOCK // 8,
                copy.start * _BLOCK // 8,
                (copy.start - distance) * _BLOCK // 8,
            )
            text = (
                f"{size} bytes from byte {at} came back as those from byte {back} did, to the bit ({worst.pattern} at "
                f"{worst.vdd:.4g} V): a copied buffer, not cells of their own. Left out of all rates and of the fit"
            )
            yield Artefact("repeated block", text, cells)


def _information(masked: Words, bits: int, blocks: int) -> Floats:
    """Return how improbable the errors of each block are, in nats, given the error rates of their lanes."""
    cells = unpack_words(masked, bits)
    at = np.flatnonzero(cells)
    chance = np.full(at.size, max(cells.mean(), 1e-12))
    for width in WIDTHS:
        n = bits // width
        if n >= 2 * FEWEST_CELLS:
            chance = np.maximum(chance, cells[: n * width].reshape(n, width).mean(axis=0)[at % width])
    information: Floats = np.bincount(at // _BLOCK, weights=-np.log(chance), minlength=blocks)[:blocks].astype(np.float64)
    return information


def _distances(number: npt.NDArray[np.intp] | Words, among: npt.NDArray[np.bool_]) -> list[int]:
    """Return the most frequent distances between equal neighbours among some of the numbers."""
    at = np.flatnonzero(among)
    order = at[np.lexsort((at, number[at]))]
    near = np.flatnonzero(number[order][1:] == number[order][:-1])
    gaps, times = np.unique(order[near + 1] - order[near], return_counts=True)
    return [int(gap) for gap in gaps[np.argsort(-times, kind="stable")][:8]]


def _runs(same: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (first, end) of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
