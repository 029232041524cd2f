"""Studies: checked before they run, the same results however they are run, finished points kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from weakcell import emulate
from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.host.study.estimate import check_fault_list, estimate
from weakcell.host.study.results import StudyResult, check_frame
from weakcell.host.study.results_folder import open_folder, save_study
from weakcell.host.study.runner import Progress, StudyInterrupted, run_study
from weakcell.host.study.study import Point, Study, resolve_study
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import MemorySpecError, OutputError, UsageError

BASE = Study(memory=parse_spec("uniform"), sweep=parse_sweep("ber=0.001,0.01,0.1"), trials=3, images=60)


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return run_study(resolve_study(BASE))


@pytest.mark.parametrize(("threads", "sweep"), [(1, "ber=0.001,0.01,0.1"), (2, "ber=0.001,0.01,0.1"), (2, "ber=0.1,0.001,0.01")])
@pytest.mark.parametrize("policy", ReadPolicy)
def test_threads_and_order_change_nothing(threads: int, sweep: str, policy: ReadPolicy, tmp_path: Path) -> None:
    few = replace(BASE, images=12, batch=5, trials=2, read_every=policy)
    expected = save_study(run_study(resolve_study(few), threads=1), tmp_path / "a")
    again = save_study(run_study(resolve_study(replace(few, sweep=parse_sweep(sweep))), threads=threads), tmp_path / "b")
    for name in ("results.parquet", "results.csv"):
        assert (expected / name).read_bytes() == (again / name).read_bytes()


def test_rows(result: StudyResult) -> None:
    frame = result.frame
    assert frame.select("sweep_value", "trial").rows() == [(v, t) for v in (0.001, 0.01, 0.1) for t in range(3)]
    by_tensor = frame.select(pl.sum_horizontal(pl.col("^flips\\[.*$"))).to_series()
    assert by_tensor.to_list() == frame["flips"].to_list()
    assert frame["memory"][0] == "uniform:lifetime=read,cells=prefer,ber=0.001"
    assert frame["energy"].null_count() == len(frame)
    assert not [name for name in frame.columns if "second" in name or "time" in name or "path" in name]


def test_summary(result: StudyResult) -> None:
    summary = result.summary
    low, mean, high = (summary[name].to_numpy() for name in ("low", "mean", "high"))
    assert np.all(low <= mean)
    assert np.all(mean <= high)
    part = result.frame.filter(pl.col("sweep_value") == 0.1)["accuracy"]
    assert summary["mean"][2] == pytest.approx(part.mean())
    assert summary["worst"][2] == part.min()
    assert summary["bound"].null_count() == 3
    assert "3 points x 3 trials" in repr(result)
    assert "lifetime" in emulate(memory="uniform:ber=0.01", trials=2, images=5)._repr_html_()


@pytest.mark.parametrize(
    ("name", "value"), [("flips", -1), ("flips[conv1.weight]", -1), ("energy", -0.5), ("flip_rate", math.nan), ("die", -3)]
)
def test_a_table_with_counts_below_zero_is_refused(result: StudyResult, name: str, value: float) -> None:
    assert check_frame(result.frame).height == 9
    with pytest.raises(ValueError, match="negative or no numbers"):
        check_frame(result.frame.with_columns(pl.lit(value).alias(name)))


def test_single_trial_has_no_interval() -> None:
    summary = emulate(memory="uniform:ber=0.01", trials=1, images=5).summary
    assert summary["low"][0] is None
    assert summary["mean"][0] is not None


def test_die_can_be_pinned_and_is_nested_over_voltage() -> None:
    pinned = emulate(memory="sram-14nm", sweep="v_over_vmin=0.75:0.95:0.1", die=5, trials=2, images=20)
    assert set(pinned.frame["die"]) == {5}
    flips = pinned.frame.filter(pl.col("trial") == 0)["flips"].to_list()
    assert flips == sorted(flips, reverse=True)
    assert pinned.frame.filter(pl.col("trial") == 1)["flips"].to_list() == flips


def test_labels_may_be_missing(tmp_path: Path) -> None:
    from weakcell.host.datasets.registry import load_data

    digits = load_data("digits")
    np.savez(tmp_path / "bare.npz", x=digits.x)
    bare = emulate("digits-bnn", tmp_path / "bare.npz", memory="uniform:ber=0.05", trials=2)
    full = emulate("digits-bnn", memory="uniform:ber=0.05", trials=2)
    assert bare.frame["accuracy"].null_count() == 2
    assert bare.frame["changed"].to_list() == full.frame["changed"].to_list()
    assert bare.summary["score"][0] == "unchanged"
    assert (bare.save(tmp_path / "out") / "study.png").stat().st_size > 10_000


def test_energy_never_mixes_units() -> None:
    mixed = emulate(memory="sram-14nm:v_over_vmin=0.9", place={"/dense3/Gemm": "sram-28nm-kc705b:vdd=0.6"}, trials=1, images=5)
    assert mixed.frame["energy"][0] is None
    assert len(mixed.resolved.points[0].cost.energy) == 2
    partly = emulate(memory="sram-14nm:v_over_vmin=0.9", place={"/dense3/Gemm": "uniform:ber=0"}, trials=1, images=5)
    assert 0 < partly.frame["energy_share"][0] < 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"sweep": parse_sweep("ber=0.5,1.5")}, MemorySpecError),
        ({"sweep": parse_sweep("nonsense=1,2")}, MemorySpecError),
        ({"sweep": None}, MemorySpecError),
        ({"trials": 0}, UsageError),
        ({"batch": 0}, UsageError),
        ({"images": 0}, UsageError),
        ({"die": -1}, UsageError),
        ({"seed": 1 << 63}, UsageError),
        ({"places": (("nowhere", parse_spec("uniform:ber=0.1")),)}, UsageError),
        ({"places": (("*", parse_spec("uniform:ber=0.1")),)}, UsageError),
    ],
)
def test_refused_before_anything_runs(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        resolve_study(replace(BASE, **change))  # type: ignore[arg-type]


def test_ctrl_c_keeps_finished_points(tmp_path: Path, result: StudyResult) -> None:
    resolved = resolve_study(BASE)
    folder = open_folder(tmp_path / "out", resolved)

    def stop_in_second_point(progress: Progress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    def write(so_far: StudyResult, point: Point) -> None:
        folder.write(so_far)

    with pytest.raises(StudyInterrupted) as interrupted:
        run_study(resolved, threads=1, on_trial=stop_in_second_point, on_point=write)
    partial = interrupted.value.result
    assert partial is not None
    assert not partial.complete
    kept = pl.read_parquet(tmp_path / "out" / "results.parquet")
    assert len(kept) % 3 == 0
    assert 0 < len(kept) < 9
    assert kept.equals(result.frame.head(len(kept)))


def test_folder_of_another_study_is_refused(tmp_path: Path, result: StudyResult) -> None:
    save_study(result, tmp_path / "out")
    save_study(result, tmp_path / "out")
    other = resolve_study(replace(BASE, seed=1))
    with pytest.raises(OutputError, match="another study"):
        open_folder(tmp_path / "out", other)
    assert open_folder(tmp_path / "out", other, overwrite=True)
    assert not (tmp_path / "out" / "results.parquet").exists()
    save_study(result, tmp_path / "nameless")
    (tmp_path / "nameless" / "study.json").unlink()
    with pytest.raises(OutputError):
        open_folder(tmp_path / "nameless", resolve_study(BASE))


def test_no_temporary_files_stay(tmp_path: Path, result: StudyResult) -> None:
    names = {file.name for file in save_study(result, tmp_path / "out").iterdir()}
    assert names == {"results.parquet", "results.csv", "study.json", "timings.json", "study.png", "study.svg"}


def test_figures_repeat(tmp_path: Path, result: StudyResult) -> None:
    one, two = save_study(result, tmp_path / "one"), save_study(result, tmp_path / "two")
    assert (one / "study.png").read_bytes() == (two / "study.png").read_bytes()
    assert (one / "study.svg").read_bytes() == (two / "study.svg").read_bytes()


def test_estimate_is_of_the_right_size(result: StudyResult) -> None:
    found = estimate(result.resolved, threads=1)
    assert found.points * found.trials == len(result.outcomes)
    assert 0 < found.seconds < 30
    assert found.memory_bytes > 1 << 20


def test_absurd_fault_lists_are_refused() -> None:
    resolved = resolve_study(replace(BASE, read_every=ReadPolicy.ACCESS, trials=1000))
    with pytest.raises(UsageError, match="flips are expected"):
        check_fault_list(resolved)
    assert check_fault_list(resolved, yes=True) > 2e8
