"""Tasks through the commands: stores, differences, reports, replays, exit codes; figures are set against a study of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from typer.testing import CliRunner

from tests.emulator.models import run
from tests.emulator.test_tasks_exporters import labels_for, network_of
from weakcell import emulate
from weakcell.host.campaign.explain import find_run, reproduce
from weakcell.host.campaign.store import read_store
from weakcell.host.campaign.tables import Tables, compute_differences
from weakcell.host.cli import app
from weakcell.host.report.answers import summarize
from weakcell.host.report.chart_specs import build_charts
from weakcell.host.report.data import read_report_data
from weakcell.host.study.workload import open_workload
from weakcell.memmodels.errors import UsageError

CAMPAIGN = """
trials = 3
[[network]]
model = "segmentation.onnx"
data = "segmentation.npz"
images = 20
[[network]]
model = "regression.onnx"
data = "regression.npz"
task = "values:score=mse"
output = "y"
[[memory]]
spec = "uniform"
grid = { ber = [0.001, 0.02] }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    for kind in ("segmentation", "regression"):
        proto, x = network_of(kind)
        onnx.save(proto, made / f"{kind}.onnx")
        np.savez(made / f"{kind}.npz", x=x, y=labels_for(kind, run(proto, {"x": x})[0]))
    (made / "campaign.toml").write_text(CAMPAIGN, encoding="utf-8")
    result = CliRunner().invoke(app, ["sweep", str(made / "campaign.toml"), "--out", str(made / "out"), "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "mean IoU" in result.output
    assert "mean squared error" in result.output
    return made


def test_the_default_task_is_no_part_of_an_identity() -> None:
    """Stores of results from before there were tasks are found again."""
    assert not {"task", "output"} & set(open_workload("digits-bnn", images=20).identity)
    assert open_workload("digits-bnn", images=20).identity["images"] == 20


def test_a_store_keeps_the_metrics_of_each_task(folder: Path) -> None:
    with read_store(folder / "out") as store:
        tables = Tables(store)
        frame, summary = tables.frame, tables.summary
    assert summary["score"].to_list() == ["mean_iou", "mean_iou", "mse", "mse"]
    for kind, metric, task in (("segmentation", "mean_iou", None), ("regression", "mse", "values:score=mse")):
        images = 20 if kind == "segmentation" else None
        found = emulate(folder / f"{kind}.onnx", folder / f"{kind}.npz", memory="uniform", sweep="ber=0.001,0.02", trials=3,
                        images=images, task=task)  # fmt: skip
        kept = frame.filter(pl.col("model") == kind)
        assert kept[metric].to_list() == pytest.approx(found.frame[metric].to_list())
        assert kept["clean_score"].to_list() == found.frame["clean_score"].to_list()
        mean = [part[metric].mean() for _, part in found.frame.group_by("sweep_value", maintain_order=True)]
        assert found.summary["mean"].to_list() == pytest.approx(mean)
        worst = [(part[metric].min if metric == "mean_iou" else part[metric].max)() for _, part in
                 found.frame.group_by("sweep_value", maintain_order=True)]  # fmt: skip
        assert found.summary["worst"].to_list() == worst  # the largest error is the worst
    assert frame.filter(pl.col("model") == "regression")["accuracy"].null_count() == 6


def test_differences_are_those_of_the_score(folder: Path) -> None:
    with read_store(folder / "out") as store:
        tables = Tables(store)
        found, frame = compute_differences(tables), tables.frame
    assert found["score"].to_list() == ["mean_iou", "mse"]
    for model, row in zip(("segmentation", "regression"), found.iter_rows(named=True), strict=True):
        own = frame.filter(pl.col("model") == model)[row["score"]].to_numpy()
        assert row["difference"] == pytest.approx((own[3:] - own[:3]).mean())


def test_a_row_comes_out_again(folder: Path) -> None:
    with read_store(folder / "out") as store:
        found = find_run(store, "9")
    assert found.arguments[-8:-4] == ["--task", "values:score=mse", "--output", "y"]
    assert found.metrics["mse"] > 0
    assert reproduce(found).equal


def test_reports_draw_each_score_on_its_own_axis(folder: Path) -> None:
    data = read_report_data(folder / "out", extras=False)
    text = " ".join(summarize(data))
    assert "mean squared error grows to" in text
    assert "mean IoU" in text
    assert "mse-ber" in {panel.file_name for chart in build_charts(data) for panel in chart.panels}
    result = CliRunner().invoke(app, ["report", str(folder / "out")])
    assert result.exit_code == 0, result.output
    assert "mean squared error" in (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_half_widths_of_errors_are_refused(folder: Path) -> None:
    (folder / "width.toml").write_text("half_width = 0.01\n" + CAMPAIGN, encoding="utf-8")
    result = CliRunner().invoke(app, ["sweep", str(folder / "width.toml"), "--out", str(folder / "none")])
    assert result.exit_code == 3
    assert "half_width" in result.output


def test_a_fault_list_replays_with_its_task(folder: Path) -> None:
    data, list_ = ["--data", str(folder / "segmentation.npz")], str(folder / "faults.csv")
    options = ["--memory", "uniform:ber=0.02", "--trials", "1", "--task", "pixels:score=accuracy", "--json"]
    model = str(folder / "segmentation.onnx")
    first = CliRunner().invoke(app, ["emulate", model, *data, *options, "--save-faults", list_])
    again = CliRunner().invoke(app, ["emulate", model, *data, "--faults", list_, "--json"])
    points = [
        next(event for line in shown.stdout.splitlines() if (event := json.loads(line))["event"] == "point")
        for shown in (first, again)
    ]
    assert points[0]["score"] == points[1]["score"] == "accuracy"
    assert points[0]["mean"] == points[1]["mean"]


@pytest.mark.parametrize("command", ["margins", "validate", "predict", "rank", "optimize"])
def test_commands_say_what_they_cannot_do(folder: Path, command: str) -> None:
    model, data = str(folder / "regression.onnx"), str(folder / "regression.npz")
    result = CliRunner().invoke(app, [command, model, "--data", data])
    assert result.exit_code == 2
    assert "'y'" in result.output


def test_an_optimum_may_lose_mean_iou(folder: Path) -> None:
    workload = open_workload(str(folder / "segmentation.onnx"), str(folder / "segmentation.npz"), images=20)
    from weakcell.host.campaign.optimize import open_search
    from weakcell.host.study.study import Study
    from weakcell.memmodels.catalogue import parse_spec

    search = open_search(workload, Study(model="x", memory=parse_spec("sram-14nm"), sweep=None))
    assert search.clean == workload.questions.fault_free_judgement.metrics["mean_iou"]
    with pytest.raises(UsageError, match="mean absolute error"):
        _ = open_search(open_workload(str(folder / "regression.onnx"), str(folder / "regression.npz")), search.study).clean
