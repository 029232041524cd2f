"""Analyze read-backs: rates with intervals, polarity, repeatability, nesting, weak cells by position, and a fitted profile.

A cell counts once for each value that it held. If several patterns gave it the same value, the first one counts. So repeats and
patterns never narrow an interval over cells. A voltage that lacks a pattern because the board fell silent keeps its rates, and is
left out of the law. Cells of dead lanes and of repeated data (`artefacts`) do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.host.board.characterization.points import Outcome
from weakcell.host.board.readbacks.artefacts import check_readout, excluded_cells, find_artefacts
from weakcell.host.board.readbacks.bank_laws import BankLaws, fit_bank_laws
from weakcell.host.board.readbacks.readback_set import Artefact, PatternReadback, ReadbackSet
from weakcell.memmodels.address import Words, popcount, set_bits
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.fitting.counts import ReadBack
from weakcell.memmodels.fitting.fit import Fit, fit
from weakcell.memmodels.memory import Basis
from weakcell.memmodels.profile import Constant, Profile


@dataclass(frozen=True)
class PointSummary:
    """The result at one operating point.

    Attributes:
        vdd, dwell_s: in V and s.
        outcome: the worst of its patterns.
        reads: of all patterns.
        flips: cells that came back inverted, per read, over all patterns.
        weak, pairs: (cell, value) pairs that ever erred, and all.
        rate: weak / pairs, with an interval that respects clustering; a share of single reads if errors change at each read.
        p01, p10: the same for cells that held 0, and 1; None if no cell did.
        constants: of the fitted structure at this point (p01, p10, F …).
        always: of the cells that erred, summed over patterns, how many erred at every read; and all of them.
        nested: of the cells that erred at the next higher voltage, how many erred here too; and all of them.
    """

    vdd: float
    dwell_s: float
    outcome: Outcome
    reads: int
    flips: float
    weak: int
    pairs: int
    rate: Constant | None
    p01: Constant | None
    p10: Constant | None
    constants: tuple[Constant, ...]
    always: tuple[int, int] | None
    nested: tuple[int, int] | None

    def fitted(self, name: str) -> Constant | None:
        """Return a constant of the fit by name; None if there is none.

        p01 and p10 are both p (or P) where the fit has no polarity and both were measured.
        """
        known = {constant.name: constant for constant in self.constants}
        measured = {"p01": self.p01, "p10": self.p10}.get(name)
        return known.get(name) or (known.get("p") or known.get("P") if measured is not None else None)


@dataclass(frozen=True, eq=False)
class Series:
    """All voltages at one dwell.

    Attributes:
        dwell_s: in s.
        rows: one per voltage, descending.
        points: the fit of each voltage by itself.
        law: the fit over the voltage, None if there is none.
        no_law: why there is none.
        outside: voltages that have counts and are not in the law, because a pattern is missing.
        highest: (bits,) float32, the highest voltage at which each cell erred, 0 for never.
        profile: of the law, or of the points.
        banks: the laws of the physical banks; None where there is no law, or words are not striped over banks.
    """

    dwell_s: float
    rows: tuple[PointSummary, ...]
    points: Fit
    law: Fit | None
    no_law: str
    outside: tuple[float, ...]
    highest: npt.NDArray[np.float32]
    profile: Profile
    banks: BankLaws | None = None


@dataclass(frozen=True, eq=False)
class ReadbackAnalysis:
    """The analysis of read-backs, one series per dwell.

    Attributes:
        readbacks: what was analyzed.
        series: by dwell.
        artefacts: what in the read-backs is not a failing cell.
        excluded: cells that were left out.
    """

    readbacks: ReadbackSet
    series: tuple[Series, ...]
    artefacts: tuple[Artefact, ...] = ()
    excluded: int = 0

    @property
    def rows(self) -> tuple[PointSummary, ...]:
        """The points of all series."""
        return tuple(row for one in self.series for row in one.rows)


def analyze_readbacks(readbacks: ReadbackSet, name: str = "profile") -> ReadbackAnalysis:
    """Fit everything that was counted; InputError if nothing was. name: of the profile."""
    _check_bank(readbacks)
    check_readout(readbacks)
    artefacts = find_artefacts(readbacks)
    lower = [one for one in readbacks.measured if one.vdd != readbacks.nominal]
    dwells = sorted({one.dwell_s for one in lower}) or sorted({one.dwell_s for one in readbacks.measured})
    series = []
    for dwell in dwells:
        at_dwell = [one for one in readbacks.measured if one.dwell_s == dwell or one.vdd == readbacks.nominal]
        series.append(_series(readbacks, at_dwell, artefacts, dwell, name if len(dwells) == 1 else f"{name}-{1000 * dwell:g}ms"))
    excluded = popcount(excluded_cells(artefacts, -(-readbacks.bits // 64), from_law=False))
    return ReadbackAnalysis(readbacks, tuple(series), artefacts, excluded)


def _check_bank(readbacks: ReadbackSet) -> None:
    """Raise InputError for a bank so much larger than the memory that its map would be nearly empty."""
    bank = readbacks.bank
    if bank.rows * bank.columns > max(16 * readbacks.bits, 1 << 24):
        found = f"a bank has {bank.rows} x {bank.columns} cells, and {readbacks.bits} were read"
        raise InputError(f"Read-backs of {readbacks.title}", found, "Give the rows and columns of a bank of this memory")


def _series(
    readbacks: ReadbackSet, measured: Sequence[PatternReadback], artefacts: Sequence[Artefact], dwell: float, name: str
) -> Series:
    words = -(-readbacks.bits // 64)
    valid, law_valid = (~excluded_cells(artefacts, words, from_law=law) for law in (False, True))
    voltages = sorted({one.vdd for one in measured}, reverse=True)
    by_voltage = {vdd: [_without(one, valid) for one in measured if one.vdd == vdd] for vdd in voltages}
    selected = {vdd: _select_counted(readbacks, ones, valid) for vdd, ones in by_voltage.items()}
    counted = [vdd for vdd in voltages if selected[vdd]]
    if not counted:
        outcomes = ", ".join(sorted({str(one.outcome) for one in measured}))
        asked = f"Read-backs of {readbacks.title}"
        if any(one.errors is not None for one in measured):
            raise InputError(asked, f"no cell is left: {'; '.join(one.text for one in artefacts)}", "Check how they were read")
        raise InputError(asked, f"nothing in them was counted ({outcomes})", "Measure again")
    about = {"title": readbacks.title, "source": readbacks.source, "notes": _notes(readbacks, artefacts)}
    points = fit([back for vdd in counted for back in selected[vdd]], readbacks.bank, name=name, about=about)
    patterns = {vdd: len(selected[vdd]) for vdd in counted}
    whole = [vdd for vdd in counted if patterns[vdd] == max(patterns.values())]
    refused = "; ".join(one.no_law for one in artefacts if one.no_law)
    law, no_law, backs = None, refused, list[ReadBack]()
    if not refused:
        backs = [back for vdd in whole for back in _select_counted(readbacks, by_voltage[vdd], law_valid)]
        law, no_law = _law(backs, readbacks.bank, name, about)
    rows = tuple(_row(vdd, dwell, by_voltage, selected, counted, points) for vdd in voltages)
    banks = fit_bank_laws(readbacks, backs, law) if law is not None and readbacks.stripes > 1 else None
    profile = _with_basis((law or points).profile, readbacks.basis)
    if banks is not None and banks.differ:
        profile = replace(profile, notes=f"{profile.notes}. {banks}" if profile.notes else str(banks))
    outside = tuple(vdd for vdd in counted if vdd not in whole) if law is not None else ()
    return Series(dwell, rows, points, law, no_law, outside, _highest(readbacks.bits, by_voltage), profile, banks)


def _notes(readbacks: ReadbackSet, artefacts: Sequence[Artefact]) -> str:
    """Return the notes of a profile: those of the measurement, and what was left out."""
    return ". ".join(part for part in (readbacks.notes, *(one.text for one in artefacts)) if part)


def _without(one: PatternReadback, valid: Words) -> PatternReadback:
    """Return a read-back without the errors of cells that do not count."""
    return one if one.errors is None else replace(one, errors=one.errors & valid)


def _law(backs: list[ReadBack], bank: Bank, name: str, about: Mapping[str, str]) -> tuple[Fit | None, str]:
    try:
        return fit(backs, bank, law="vdd", unit="V", name=name, about=about), ""
    except InputError as error:
        return None, error.found


def _select_counted(readbacks: ReadbackSet, ones: Sequence[PatternReadback], valid: Words) -> list[ReadBack]:
    """Return the read-backs of one point, in which each kept cell counts once for each value it held."""
    backs: list[ReadBack] = []
    values_held = [np.zeros(-(-readbacks.bits // 64), np.uint64) for _ in range(2)]
    for one in ones:
        if one.errors is None:
            continue
        new = ((one.written & ~values_held[1]) | (~one.written & ~values_held[0])) & valid
        values_held = [values_held[0] | ~one.written, values_held[1] | one.written]
        if popcount(new):
            used = None if popcount(new) == new.size * 64 else new
            backs.append(ReadBack(one.written, one.errors ^ one.written, readbacks.bits, 0, {"vdd": one.vdd}, used))
    return backs


def _row(
    vdd: float,
    dwell: float,
    by_voltage: Mapping[float, Sequence[PatternReadback]],
    selected: Mapping[float, list[ReadBack]],
    counted: Sequence[float],
    points: Fit,
) -> PointSummary:
    ones = by_voltage[vdd]
    outcome = next((one.outcome for one in ones if not one.outcome.has_counts), None)
    if outcome is None:
        outcome = Outcome.FLIPS if any(one.outcome is Outcome.FLIPS for one in ones) else Outcome.OK
    reads = sum(len(one.errors) for one in ones if one.errors is not None)
    flips = sum(popcount(one.errors) for one in ones if one.errors is not None)
    if vdd not in counted:
        return PointSummary(vdd, dwell, outcome, 0, 0.0, 0, 0, None, None, None, (), None, None)
    at = counted.index(vdd)
    weak, pairs = int(points.profile.arrays["faulty"][at]), int(points.profile.arrays["cells"][at])
    nested = None if at == 0 else _nested(by_voltage[counted[at - 1]], ones)
    rate, p01, p10 = (points.counted[at].get(name) for name in ("rate", "p01", "p10"))
    constants = points.by_point[at]
    return PointSummary(vdd, dwell, outcome, reads, flips / reads, weak, pairs, rate, p01, p10, constants, _always(ones), nested)


def _always(ones: Sequence[PatternReadback]) -> tuple[int, int] | None:
    """Return how many of the erred cells erred at every read, and all of them; None if each was read once."""
    repeated = [one.errors for one in ones if one.errors is not None and len(one.errors) > 1]
    if not repeated:
        return None
    every = sum(popcount(np.bitwise_and.reduce(errors, axis=0)) for errors in repeated)
    return every, sum(popcount(np.bitwise_or.reduce(errors, axis=0)) for errors in repeated)


def _nested(higher: Sequence[PatternReadback], lower: Sequence[PatternReadback]) -> tuple[int, int]:
    """Return how many cells that erred at the higher voltage erred at the lower one, and all of them."""
    erred_too = total = 0
    below = {one.pattern: _erred_cells(one) for one in lower}
    for one in higher:
        above, same = _erred_cells(one), below.get(one.pattern)
        if above is not None and same is not None:
            erred_too, total = erred_too + popcount(above & same), total + popcount(above)
    return erred_too, total


def _erred_cells(one: PatternReadback) -> Words | None:
    """Return the cells that erred at any read; None if nothing was counted."""
    if one.errors is None:
        return None
    erred: Words = np.bitwise_or.reduce(one.errors, axis=0)
    return erred


def _highest(bits: int, by_voltage: Mapping[float, Sequence[PatternReadback]]) -> npt.NDArray[np.float32]:
    highest = np.zeros(bits, np.float32)
    for vdd in sorted(by_voltage):
        for one in by_voltage[vdd]:
            if (erred := _erred_cells(one)) is not None:
                highest[set_bits(erred)] = vdd
    return highest


def _with_basis(profile: Profile, basis: Basis) -> Profile:
    """Mark constants of simulated cells as computed."""
    if basis == "measured":
        return profile
    constants = tuple(replace(one, basis=basis) if one.basis == "measured" else one for one in profile.constants)
    return replace(profile, basis=basis, constants=constants)


def count_weak_cells(series: Series, readbacks: ReadbackSet) -> dict[str, npt.NDArray[Any]]:
    """Count weak cells by position; where words are striped over banks, each bank counts by itself.

    Returns:
        `bank` (banks,), `cells` (banks,) that were read, `row` (banks * rows,) and `column` (stripe groups, columns of a stripe).
    """
    weak, read = readbacks.arrange(series.highest > 0), readbacks.arrange(np.ones(series.highest.size, bool))
    groups, rows, columns = weak.shape
    by_bank, read_by_bank = (cells.reshape(groups, rows, readbacks.stripes, columns // readbacks.stripes) for cells in (weak, read))
    return {
        "bank": by_bank.sum(axis=(1, 3)).reshape(-1),
        "cells": read_by_bank.sum(axis=(1, 3)).reshape(-1),
        "row": by_bank.sum(axis=3).swapaxes(1, 2).reshape(-1),
        "column": weak.sum(axis=1),
    }


def compare_banks(weak: npt.NDArray[Any], cells: npt.NDArray[Any]) -> float | None:
    """Return the p-value of the hypothesis that all banks have one rate of weak cells, by Pearson's chi-square.

    None where a bank would have fewer than five weak cells.
    """
    from scipy.stats import chisquare

    weak, cells = weak[cells > 0], cells[cells > 0]
    expected = weak.sum() * cells / cells.sum()
    return float(chisquare(weak, expected).pvalue) if cells.size > 1 and expected.min() >= 5 else None
