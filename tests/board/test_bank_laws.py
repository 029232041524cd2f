"""Laws of the physical banks. The oracles: the addresses of the data sheets, and maximum likelihood by scipy."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2, norm

from weakcell.host.board.characterization.points import Outcome
from weakcell.host.board.characterization.results import write_results
from weakcell.host.board.readbacks.analysis import ReadbackAnalysis, analyze_readbacks
from weakcell.host.board.readbacks.readback_set import PatternReadback, ReadbackSet
from weakcell.memmodels.error_model.structure import Bank

VOLTAGES = (1.1, 0.65, 0.6, 0.55, 0.5)
BANKS, STRIPES, STRIPE_BYTES = 8, 4, 64 * 1024
GEOMETRY = Bank(256, 2048)
"""Of four banks side by side: 64 KiB."""


def bank_of_cells() -> np.ndarray:
    """Return the physical bank of each cell: bits 2 and 3 of the address, and four further banks behind the first four."""
    address = np.arange(2 * STRIPE_BYTES * 8) // 8
    return (address >> 2 & 3) + STRIPES * (address // STRIPE_BYTES)


def measure(mu: np.ndarray, s: np.ndarray, seed: int = 1) -> tuple[ReadbackSet, np.ndarray]:
    """Draw a threshold for each cell from its bank's law; returns the read-backs and how many cells fail first at each voltage."""
    bank = bank_of_cells()
    thresholds = np.random.default_rng(seed).normal(mu[bank], s[bank])
    measured = []
    for vdd in VOLTAGES:
        errors = np.packbits(thresholds > vdd, bitorder="little").view(np.uint64)
        outcome = Outcome.FLIPS if errors.any() else Outcome.OK
        measured.append(PatternReadback(vdd, 0.01, "zeros", outcome, np.zeros_like(errors), errors[None]))
    edges = [np.inf, *VOLTAGES, -np.inf]
    first = [[(thresholds <= high) & (thresholds > low) & (bank == each) for high, low in pairwise(edges)] for each in range(BANKS)]
    counts = np.array([[cells.sum() for cells in own] for own in first])
    return ReadbackSet("board", "retention", bank.size, GEOMETRY, tuple(measured), 1.1, stripes=STRIPES), counts


def fit_by_scipy(counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Return mu and s that make interval-censored counts most likely, and the log-likelihood; counts: descending voltage."""

    def cost(x: np.ndarray) -> float:
        above = norm.sf(np.array([np.inf, *VOLTAGES, -np.inf]), x[0], np.exp(x[1]))
        return -float(counts @ np.log(np.maximum(np.diff(above), 1e-300)))

    found = minimize(cost, [0.45, np.log(0.05)], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9, "maxiter": 4000})
    return np.array([found.x[0], np.exp(found.x[1])]), -found.fun


def analyze(mu: np.ndarray, s: np.ndarray) -> tuple[ReadbackAnalysis, np.ndarray]:
    readbacks, counts = measure(mu, s)
    return analyze_readbacks(readbacks), counts


@pytest.mark.parametrize("odd", [None, 5], ids=["alike", "one differs"])
def test_each_bank_has_the_law_that_scipy_finds(odd: int | None, tmp_path: Path) -> None:
    mu, s = np.full(BANKS, 0.45), np.full(BANKS, 0.05)
    if odd is not None:
        mu[odd], s[odd] = 0.43, 0.06
    analysis, counts = analyze(mu, s)
    banks = analysis.series[0].banks
    assert banks is not None
    assert [one.erred for one in banks.banks] == counts[:, :-1].sum(axis=1).tolist()
    assert [one.cells for one in banks.banks] == counts.sum(axis=1).tolist()
    total = 0.0
    for one, own in zip(banks.banks, counts, strict=True):
        expected, likelihood = fit_by_scipy(own)
        assert one.law is not None
        constants = [float(constant.value) for constant in one.law.constants]
        assert constants[:2] == pytest.approx(expected.tolist(), rel=1e-4 if odd is None else 2e-3)
        assert one.law.log_likelihood >= likelihood - 0.01
        assert not one.law.goodness.rejected
        total += likelihood
    _, pooled = fit_by_scipy(counts.sum(axis=0))
    if odd is None:
        assert banks.p_value == pytest.approx(chi2.sf(2 * (total - pooled), 2 * (BANKS - 1)), rel=0.02)
        assert not banks.differ
        assert "One law holds" in str(banks)
        assert str(banks) not in analysis.series[0].profile.notes
    else:
        assert banks.differ
        assert f"bank {odd} has mu = 0.4" in str(banks)
        assert str(banks) in analysis.series[0].profile.notes
    write_results(analysis, tmp_path, {})
    (series,) = json.loads((tmp_path / "characterization.json").read_text())["series"]
    assert [bank["bank"] for bank in series["banks"]] == list(range(BANKS))
    assert series["p_value_of_one_law"] == banks.p_value


def test_banks_that_hardly_erred_have_no_law_and_the_others_are_compared() -> None:
    mu = np.full(BANKS, 0.45)
    mu[3] = -1.0
    analysis, _ = analyze(mu, np.full(BANKS, 0.05))
    banks = analysis.series[0].banks
    assert banks is not None
    assert banks.banks[3].law is None
    assert "bank 3 has 0 cells that erred" in banks.banks[3].no_law
    assert banks.p_value is not None
    assert not banks.differ


def test_a_bank_that_no_probit_describes_is_told_by_its_goodness_of_fit() -> None:
    """Half of its cells are of another law: a mixture of two normal distributions."""
    readbacks, _ = measure(np.full(BANKS, 0.45), np.full(BANKS, 0.05))
    other, _ = measure(np.full(BANKS, 0.58), np.full(BANKS, 0.004), seed=2)
    half = np.random.default_rng(5).random(readbacks.bits) < 0.5
    mixed = np.packbits((bank_of_cells() == 6) & half, bitorder="little").view(np.uint64)
    measured = []
    for one, two in zip(readbacks.measured, other.measured, strict=True):
        assert one.errors is not None
        assert two.errors is not None
        errors = one.errors & ~mixed | two.errors & mixed
        measured.append(PatternReadback(one.vdd, one.dwell_s, one.pattern, one.outcome, one.written, errors))
    mixture = ReadbackSet("board", "retention", readbacks.bits, GEOMETRY, tuple(measured), 1.1, stripes=STRIPES)
    (series,) = analyze_readbacks(mixture).series
    assert series.banks is not None
    rejected = [one.law.goodness.rejected for one in series.banks.banks if one.law is not None]
    assert rejected == [number == 6 for number in range(BANKS)]
