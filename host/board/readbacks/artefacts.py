"""What in read-backs is no cell that fails: lanes that are dead, data that repeat other data, read-backs that were copied.

    dead lane         a bit of every word, or a column, row or bank, that is wrong in nearly all its cells whatever the voltage
    repeated lane     a bit of every word that always comes back as another bit of the word does
    repeated block    a run of bytes that comes back as another one does
    copied read-back  the same errors, to the bit, at two voltages, or at two reads where other reads differ
    stuck cells       cells that err at nominal voltage

Each is told in words with its extent. Cells of dead lanes and of repetitions are left out of every rate and fit, stuck cells of the
law; a copied read-back leaves no law.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from weakcell.host.board.readbacks.artefact_cells import Artefact, conditions_of, ever_erred, plural
from weakcell.host.board.readbacks.dead_lanes import find_dead_lanes
from weakcell.host.board.readbacks.readout import constant_byte
from weakcell.host.board.readbacks.repeats import find_repeated_blocks, find_repeated_lanes
from weakcell.memmodels.address import Words, popcount

if TYPE_CHECKING:
    from weakcell.host.board.readbacks.analysis import Measured, Readbacks

_COPIED = 20
"""Flips that two read-backs must have in common before one is called a copy."""


def find_artefacts(readbacks: Readbacks) -> tuple[Artefact, ...]:
    """Look for everything at the head of this module."""
    counted = [one for one in readbacks.measured if one.errors is not None]
    conditions = conditions_of(counted)
    if not conditions:
        return ()
    if len(conditions) == 1 and (byte := constant_byte(counted, readbacks.bits)) is not None:
        told = f"Every byte of every read is 0x{byte:02X}: either all cells lost what they held, or nothing was read"
        return (Artefact("constant read-out", f"{told}. One voltage cannot tell"),)
    words = counted[0].written.size
    found = find_dead_lanes(readbacks, conditions, ~np.zeros(words, np.uint64), floating=False)
    found += find_repeated_lanes(counted, ~_union(found, words), readbacks.bits)
    found += find_repeated_blocks(counted, ~_union(found, words), readbacks.bits)
    found += find_dead_lanes(readbacks, conditions, ~_union(found, words), floating=True)
    kept = ~_union(found, words)
    found += _copied_voltages(counted, kept)
    found += _copied_reads(counted, kept)
    found += _stuck_cells(readbacks, counted, kept)
    return tuple(found)


def _union(found: Sequence[Artefact], words: int) -> Words:
    """The cells that do not count."""
    union = np.zeros(words, np.uint64)
    for one in found:
        if one.cells is not None and not one.law_only:
            union |= one.cells
    return union


def excluded_cells(found: Sequence[Artefact], words: int, *, from_law: bool) -> Words:
    """Return the cells that rates (or, from_law, the law) must leave out, as (words,) uint64."""
    union = _union(found, words)
    for one in found:
        if from_law and one.cells is not None:
            union = union | one.cells
    return union


# --- read-backs that were copied -------------------------------------------------------------------------------------------------


def _copied_voltages(counted: Sequence[Measured], kept: Words) -> Iterator[Artefact]:
    """The same errors at two voltages, pattern by pattern."""
    by_pattern: dict[tuple[str, float], list[Measured]] = {}
    for one in sorted(counted, key=lambda one: -one.vdd):
        by_pattern.setdefault((one.pattern, one.dwell_s), []).append(one)
    told: dict[tuple[float, float], int] = {}
    for ones in by_pattern.values():
        for higher, lower in combinations(ones, 2):
            above, below = ever_erred(higher) & kept, ever_erred(lower) & kept
            flips = popcount(above)
            if flips >= _COPIED and np.array_equal(above, below):
                told[higher.vdd, lower.vdd] = told.get((higher.vdd, lower.vdd), 0) + flips
    for (high, low), flips in told.items():
        text = f"The read-backs at {high:.4g} and {low:.4g} V have the same {flips} flips, to the bit"
        do = "one may be a copy of the other, or the voltage made no difference"
        yield Artefact(
            "copied read-back", f"{text}: {do}. There is no law over the voltage", no_law=f"{text[0].lower()}{text[1:]}: {do}"
        )


def _copied_reads(counted: Sequence[Measured], kept: Words) -> Iterator[Artefact]:
    """Two equal reads where other reads of the same kind differ in many cells."""
    pairs = []
    for one in counted:
        assert one.errors is not None
        errors = one.errors & kept
        for first, second in combinations(range(len(errors)), 2):
            cells = popcount(errors[first] | errors[second])
            pairs.append((one, f"{first + 1} and {second + 1}", popcount(errors[first] ^ errors[second]), cells))
    differing, cells = sum(pair[2] for pair in pairs), sum(pair[3] for pair in pairs if pair[2])
    share = differing / max(cells, 1)
    for one, reads, differ, own in pairs:
        if differ == 0 and own * share >= _COPIED:
            text = (
                f"Reads {reads} of {one.pattern} at {one.vdd:.4g} V are the same, to the bit, where others "
                f"differ in {100 * share:.3g} % of the cells that err: one may be a copy, and then the repeats say less"
            )
            yield Artefact("copied read-back", text)


def _stuck_cells(readbacks: Readbacks, counted: Sequence[Measured], kept: Words) -> Iterator[Artefact]:
    """Cells that err where nothing was lowered."""
    control = [ever_erred(one) & kept for one in counted if one.vdd == readbacks.nominal]
    if not control or not (cells := np.bitwise_or.reduce(np.stack(control), axis=0)).any():
        return
    text = (
        f"{plural(popcount(cells), 'cell')} came back wrong at the nominal voltage of {readbacks.nominal:.4g} V, where nothing "
        "was lowered: stuck, or written wrongly. They count in the rates, and are left out of the law"
    )
    yield Artefact("stuck cells", text, cells, law_only=True)
