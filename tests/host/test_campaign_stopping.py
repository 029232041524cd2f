"""How many trials a mean needs, with and without flips as a covariate; what its interval covers; differences of the same trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from host.campaign.control import control_of
from host.campaign.differences import differences
from host.campaign.stopping import FIRST_STAGE, share_removed, stein_interval, trials_needed, wants_covariate
from host.campaign.store import read_store
from host.campaign.table import Tables
from host.campaign.tasks import perform, task_of
from tests.host.campaigns import campaign_of, run_all


def test_coverage_of_stein_intervals() -> None:
    """Normal trials of three spreads; the long version is `python tests/benchmarks/campaign.py coverage`."""
    rng, reps, half, most = np.random.default_rng(5), 1200, 0.005, 5000
    for spread in (0.008, 0.015, 0.03):
        held = 0
        for _ in range(reps):
            first = rng.normal(0.9, spread, FIRST_STAGE)
            needed = trials_needed(first.tolist(), half, most)
            trials = np.concatenate([first, rng.normal(0.9, spread, needed - FIRST_STAGE)])
            _, low, high = stein_interval(trials.tolist())
            held += low <= 0.9 <= high
        assert held / reps > 0.945 - 2.3 * np.sqrt(0.05 * 0.95 / reps)


def test_skewed_trials_are_covered() -> None:
    """Most dies good, a few bad; without the widening for skewness 94.2 % of intervals hold the mean here, with it 95.0 %."""
    rng, reps = np.random.default_rng(6), 3000
    held = 0
    for _ in range(reps):
        first = 0.9 - 0.006 * (rng.gamma(4.0, 1.0, FIRST_STAGE) - 4.0) / 2.0
        needed = trials_needed(first.tolist(), 0.005, 5000)
        rest = 0.9 - 0.006 * (rng.gamma(4.0, 1.0, needed - FIRST_STAGE) - 4.0) / 2.0
        _, low, high = stein_interval(np.concatenate([first, rest]).tolist())
        held += low <= 0.9 <= high
    assert held / reps > 0.945


def test_widening_for_skewness_is_what_was_promised() -> None:
    scores = np.random.default_rng(3).exponential(0.01, 30)
    _, low, high = stein_interval(scores.tolist(), 30)
    plain = stats.t.interval(0.95, 29, scores.mean(), stats.sem(scores))
    z = stats.norm.ppf(0.975)
    share = (z**4 + 2 * z**2 - 3) / 18 * stats.skew(scores, bias=False) ** 2 / 30
    assert (high - low) / (plain[1] - plain[0]) - 1 == pytest.approx(share)
    assert trials_needed([0.9] * 20, 0.005, 100) == 20
    assert trials_needed([0.9] * 19 + [0.898], 0.005, 100) == 20  # as skewed as can be, and narrow all the same
    needed = trials_needed(scores[:20], 0.003, 1000)
    assert needed > (stats.t.ppf(0.975, 19) * scores[:20].std(ddof=1) / 0.003) ** 2 + 1


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
    control = control_of(cell)
    assert control is not None
    assert control.tensor.startswith("conv1")
    task = task_of(cell.prepared, cell.point, 0, tuple(range(100)))
    flips = np.array([result.flips[control.tensor] for result in perform({task.bench: cell.prepared.bench}, task).results])
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
    assert control_of(campaign_of(text, tmp_path).cells[0]) is None


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
    rng, reps, held, made, plainly = np.random.default_rng(9), 1500, 0, 0, 0

    def trials(count: int) -> tuple[np.ndarray, np.ndarray]:
        flips = rng.poisson(37, count) - 37.0
        return 0.8 - 0.007 * flips - 0.03 * rng.gamma(2.0, 1.0, count) + 0.06, flips

    for _ in range(reps):
        scores, flips = trials(FIRST_STAGE)
        assert wants_covariate(scores, 0.008, 1000) or trials_needed(scores, 0.008, 1000) < 100
        needed = trials_needed(scores, 0.008, 1000, flips)
        plainly, made = plainly + trials_needed(scores, 0.008, 1000), made + needed
        more, further = trials(needed - FIRST_STAGE)
        _, low, high = stein_interval(np.concatenate([scores, more]), FIRST_STAGE, np.concatenate([flips, further]))
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
    control = control_of(run.cells[0])
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
        (row,) = differences(tables).iter_rows(named=True)
    assert row["trials"] == 20
    assert row["half_width"] == pytest.approx(row["half_width_unpaired"], rel=0.2)
