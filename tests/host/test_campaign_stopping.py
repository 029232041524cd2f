"""How many trials a mean needs, with and without flips as a covariate; what its interval covers; differences of the same trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tests.host.campaigns import campaign_of, run_all
from weakcell.emulator.evaluation.intervals import mean_interval
from weakcell.host.campaign.stopping import (
    FIRST_STAGE,
    find_control_variate,
    share_removed,
    stein_interval,
    trials_needed,
    wants_covariate,
)
from weakcell.host.campaign.store import read_store
from weakcell.host.campaign.tables import Tables, compute_differences
from weakcell.host.study.executors import make_task, run_task


def stopped(draw: Callable[[int], np.ndarray], half: float, most: int = 5000) -> np.ndarray:
    """Scores of a point whose trials were made in stages until its interval was narrow enough."""
    scores = draw(FIRST_STAGE)
    while (needed := trials_needed(scores, half, most)) > scores.size:
        scores = np.concatenate([scores, draw(needed - scores.size)])
    return scores


@pytest.mark.parametrize("spread", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("skewness", [0.0, 1.0, 2.0, -2.0])
def test_stopped_intervals_hold_and_are_as_narrow_as_asked(skewness: float, spread: float) -> None:
    """Normal and gamma trials whose standard deviation is so many half widths: ± 2, 1 and 0.5 points are the same by scale.

    The long version is `python tests/benchmarks/intervals.py stopped`.
    """
    rng, reps, half, held = np.random.default_rng(5), 400, 0.01, 0

    def draw(count: int) -> np.ndarray:
        if not skewness:
            return rng.normal(0.9, spread * half, count)
        shape = 4 / skewness**2
        return 0.9 + np.sign(skewness) * spread * half * (rng.gamma(shape, 1.0, count) - shape) / np.sqrt(shape)

    for _ in range(reps):
        mean, low, high = stein_interval(stopped(draw, half))
        held += low <= 0.9 <= high
        assert max(mean - low, high - mean) <= half
    assert held / reps > 0.945 - 2.6 * np.sqrt(0.05 * 0.95 / reps)


def test_stopped_intervals_are_wider_where_trials_are_skewed() -> None:
    """Without skewness and a second stage, the interval is that of `weakcell.emulator.evaluation.intervals`; otherwise both ends
    are farther away."""
    even = np.resize([0.88, 0.9, 0.92], 30)
    assert stein_interval(even, 30) == pytest.approx(mean_interval(even))
    scores = np.random.default_rng(3).exponential(0.01, 30)
    plain, wider = mean_interval(scores), stein_interval(scores, 30)
    z = stats.norm.ppf(0.975)
    share = 2 * (z**4 + 2 * z**2 - 3) / 18 * stats.skew(scores, bias=False) ** 2 / 30
    extra = share * stats.t.ppf(0.975, 29) * stats.sem(scores)
    assert wider == pytest.approx((plain[0], plain[1] - extra, plain[2] + extra), rel=1e-3)
    assert stein_interval(scores, 30, bounds=(0.009, 0.01))[1:] == (0.009, 0.01)


def test_a_first_stage_that_varied_more_counts() -> None:
    """The larger of the two products of quantile and standard deviation makes the interval: Stein's, or the ordinary one."""
    calm, wild = np.resize([0.89, 0.91], 20), np.resize([0.8, 1.0], 20)
    for scores in (np.concatenate([wild, calm]), np.concatenate([calm, wild])):
        _, low, high = stein_interval(scores, 20)
        halves = [stats.t.ppf(0.975, one.size - 1) * one.std(ddof=1) / np.sqrt(40) for one in (scores[:20], scores)]
        assert (high - low) / 2 == pytest.approx(max(halves))


def test_trials_asked_for() -> None:
    """Nothing varies: the first stage does. Otherwise the fewest that are predicted to be narrow enough, and never above `most`."""
    assert trials_needed([0.9] * 20, 0.005, 100) == 20
    scores = np.resize([0.88, 0.92], 20)
    needed = trials_needed(scores, 0.005, 1000)
    half = stats.t.ppf(0.975, 19) * scores.std(ddof=1)
    assert half / np.sqrt(needed) <= 0.005 < half / np.sqrt(needed - 1)
    assert trials_needed(scores, 0.005, 30) == 30
    assert trials_needed([0.9], 0.005, 30) == 1


def test_half_width_stops_early(tmp_path: Path) -> None:
    text = 'trials = 60\nhalf_width = 0.02\n[[network]]\nmodel = "digits-bnn"\nimages = 60\n[[memory]]\nspec = "sram-14nm"\n'
    run = campaign_of(text + "grid = {v_over_vmin = [0.78, 0.84, 1.0]}\n", tmp_path)
    run_all(run, tmp_path / "out")
    with read_store(tmp_path / "out") as store:
        summary = Tables(store).summary
    trials = summary["trials"].to_list()
    assert trials[0] == 60
    assert trials[2] == FIRST_STAGE
    widths = (summary["high"] - summary["low"]).to_list()
    assert widths[2] <= 0.04
    assert run_all(run, tmp_path / "out") == 0


# ── flips as a covariate ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("model", "memory"),
    [
        ("digits-bnn", "sram-14nm:v_over_vmin=0.84"),
        ("digits-qnn", "uniform:p01=0.02,p10=0.005"),
        ("digits-qnn", "sttram:delta=60,tau=4"),
    ],
)
def test_flips_are_as_many_as_expected(model: str, memory: str, tmp_path: Path) -> None:
    text = f'trials = 100\n[[network]]\nmodel = "{model}"\nimages = 1\n[[memory]]\nspec = "{memory}"\n'
    (cell,) = campaign_of(text, tmp_path).cells
    control = find_control_variate(cell.resolved, cell.point)
    assert control is not None
    assert control.tensor.startswith("conv1")
    task = make_task(cell.resolved, cell.point, 0, tuple(range(100)))
    flips = np.array([result.flips[control.tensor] for result in run_task({task.workload: cell.resolved.workload}, task).results])
    assert abs(flips.mean() - control.expected) < 4 * flips.std(ddof=1) / np.sqrt(100)
    assert flips.std() > 0


@pytest.mark.parametrize(
    ("line", "memory"),
    [
        ("die = 3", "sram-14nm:v_over_vmin=0.84"),
        ('read_every = ["image"]', "sram-14nm:v_over_vmin=0.84"),
        ("", "secded+sram-14nm:v_over_vmin=0.84"),
        ("", "dram:trcd=6"),  # rows of one polarity
    ],
)
def test_no_covariate_where_its_mean_is_not_known(line: str, memory: str, tmp_path: Path) -> None:
    text = f'{line}\n[[network]]\nmodel = "digits-bnn"\nimages = 1\n[[memory]]\nspec = "{memory}"\n'
    cell = campaign_of(text, tmp_path).cells[0]
    assert find_control_variate(cell.resolved, cell.point) is None


def test_regression_on_a_covariate_is_least_squares() -> None:
    rng = np.random.default_rng(8)
    known = rng.normal(0.3, 1.0, 80)
    scores = 0.9 - 0.02 * known + rng.normal(0, 0.01, 80)
    mean, low, high = stein_interval(scores, 80, known)
    fit = stats.linregress(known, scores)
    assert mean == pytest.approx(fit.intercept)
    assert (high - low) / 2 == pytest.approx(fit.intercept_stderr * stats.t.ppf(0.975, 78), rel=0.05)
    assert share_removed(scores, known) == pytest.approx(1 - (1 - fit.rvalue**2) * 79 / 78)
    assert stein_interval(scores, 80, np.zeros(80)) == stein_interval(scores, 80)


def test_intervals_with_a_covariate_are_covered() -> None:
    """A share of bad flips, as a first convolution has them: fewer trials, and the intervals still hold the mean."""
    rng, reps, held, made, plainly = np.random.default_rng(9), 500, 0, 0, 0

    def trials(count: int) -> tuple[np.ndarray, np.ndarray]:
        flips = rng.poisson(37, count) - 37.0
        return 0.8 - 0.007 * flips - 0.03 * rng.gamma(2.0, 1.0, count) + 0.06, flips

    for _ in range(reps):
        scores, flips = trials(FIRST_STAGE)
        assert wants_covariate(scores, 0.008, 1000) or trials_needed(scores, 0.008, 1000) < 100
        plainly += trials_needed(scores, 0.008, 1000)
        while (needed := trials_needed(scores, 0.008, 1000, flips)) > len(scores):
            more, further = trials(needed - len(scores))
            scores, flips = np.concatenate([scores, more]), np.concatenate([flips, further])
        made += needed
        _, low, high = stein_interval(scores, FIRST_STAGE, flips)
        held += low <= 0.8 <= high
    assert held / reps > 0.945 - 2.3 * np.sqrt(0.05 * 0.95 / reps)
    assert made < 0.75 * plainly


def test_a_sweep_uses_it_where_many_trials_are_needed(tmp_path: Path) -> None:
    text = 'trials = 90\nhalf_width = 0.005\n[[network]]\nmodel = "digits-bnn"\nimages = 60\n[[memory]]\nspec = "sram-14nm"\n'
    run = campaign_of(text + "grid = {v_over_vmin = [0.78, 1.0]}\n", tmp_path)
    run_all(run, tmp_path / "out")
    summary = pl.read_csv(tmp_path / "out" / "summary.csv")
    assert summary["control"].to_list() == ["conv1.weight", None]
    flips = pl.read_csv(tmp_path / "out" / "results.csv").filter(sweep_value=0.78)
    assert flips.height == 90
    control = find_control_variate(run.cells[0].resolved, run.cells[0].point)
    assert control is not None
    fit = stats.linregress(flips["flips[conv1.weight]"].to_numpy() - control.expected, flips["accuracy"].to_numpy())
    assert summary["mean"][0] == pytest.approx(fit.intercept)
    assert summary["removed"][0] == pytest.approx(1 - (1 - fit.rvalue**2) * 89 / 88)


# ── differences ─────────────────────────────────────────────────────────────────────────────────────


def test_differences_are_those_of_the_same_trials(tmp_path: Path) -> None:
    text = 'trials = 6\n[[network]]\nmodel = "digits-bnn"\nimages = 40\n[[network]]\nmodel = "digits-qnn"\nimages = 40\n'
    text += '[[memory]]\nspec = "sram-14nm"\ngrid = { v_over_vmin = [0.78, 0.8, 0.84] }\n'
    run_all(campaign_of(text, tmp_path), tmp_path / "out")
    found = pl.read_csv(tmp_path / "out" / "differences.csv")
    assert found["between"].value_counts(sort=True).rows() == [("points", 4), ("networks", 3)]
    assert found["trials"].to_list() == [6] * 7
    runs = pl.read_csv(tmp_path / "out" / "results.csv")
    for row in found.iter_rows(named=True):
        here, there = (
            runs.filter((pl.col("study") == row[f"{name}study"]) & (pl.col("memory") == row[f"{name}memory"]))[
                "accuracy"
            ].to_numpy()
            for name in ("", "from_")
        )
        expected = stats.ttest_rel(here, there).confidence_interval(0.95)
        assert row["difference"] == pytest.approx((here - there).mean())
        assert row["low"] <= expected.low + 1e-12
        assert expected.high - 1e-12 <= row["high"]
        assert row["high"] - row["low"] < 1.6 * (expected.high - expected.low)
        assert row["half_width"] == pytest.approx((row["high"] - row["low"]) / 2)


def test_only_trials_that_both_have_are_compared(tmp_path: Path) -> None:
    text = 'trials = 40\nhalf_width = 0.03\n[[network]]\nmodel = "digits-bnn"\nimages = 60\n[[memory]]\nspec = "sram-14nm"\n'
    run_all(campaign_of(text + "grid = {v_over_vmin = [0.78, 1.0]}\n", tmp_path), tmp_path / "out")
    with read_store(tmp_path / "out") as store:
        tables = Tables(store)
        assert tables.summary["trials"].to_list() == [40, 20]
        (row,) = compute_differences(tables).iter_rows(named=True)
    assert row["trials"] == 20
    assert row["half_width"] == pytest.approx(row["half_width_unpaired"], rel=0.2)
