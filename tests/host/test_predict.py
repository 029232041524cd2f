"""`weakcell predict`: tables, files, comparison with trials, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from weakcell import predict
from weakcell.host.cli import app
from weakcell.host.report.prediction_report import describe_answer
from weakcell.memmodels.errors import UsageError


def weakcell(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_the_command_writes_tables_and_a_figure(tmp_path: Path) -> None:
    few = ("--images", 60, "--samples", 4, "-q")
    said = weakcell("--memory", "uniform", "--sweep", "ber=0.01,0.1", "--check-trials", 3, "--out", tmp_path, *few)
    assert said.exit_code == 0, said.output
    assert "predicted" in said.stdout
    assert "outside" in said.stdout
    frame = pl.read_parquet(tmp_path / "prediction.parquet")
    assert frame["sweep_value"].to_list() == [0.01, 0.1]
    assert frame["trials"].to_list() == [3, 3]
    assert frame["flip_rate"].to_list() == pytest.approx([0.01, 0.1])
    assert frame["accuracy"][0] > frame["accuracy"][1]
    assert pl.read_csv(tmp_path / "prediction.csv")["accuracy"].to_list() == pytest.approx(frame["accuracy"].to_list())
    told = json.loads((tmp_path / "prediction.json").read_text())
    assert told["samples"] == 4
    assert (tmp_path / "prediction.svg").stat().st_size > 1000
    events = [json.loads(line) for line in weakcell("--memory", "uniform:ber=0.01", *few, "--json").stdout.splitlines()]
    assert [event["event"] for event in events] == ["point", "done"]
    assert events[0]["accuracy"] == frame["accuracy"][0]


@pytest.mark.parametrize("rates", [(0.0, 0.0001, 0.1), (0.0, 0.00001), (0.05, 0.1)])
def test_the_answer_names_the_last_point_that_loses_little(rates: tuple[float, ...]) -> None:
    """Oracle: a walk over the table from the lowest flip rate on."""
    found = predict("digits-bnn", memory="uniform", sweep={"ber": list(rates)}, images=100)
    clean = found.resolved.questions.fault_free_accuracy
    assert clean is not None
    good = [rate for rate, accuracy, half in found.frame.select("sweep_value", "accuracy", "half_width").rows()
            if clean - accuracy + half <= 0.01]  # fmt: skip
    answer = describe_answer(found)
    if not good:
        assert answer.startswith("No point is certain to lose less than 1 point")
    elif len(good) == len(rates):
        assert "is lost everywhere" in answer
    else:
        assert f"is lost up to ber={good[-1]:g}; ber=0.1 loses" in answer


def test_flip_rates_count_what_is_stored() -> None:
    found = predict("digits-qnn", memory="uniform:p01=0.1,p10=0", images=20, samples=2, check_trials=3)
    measured = found.measured
    assert measured is not None
    assert found.frame["flip_rate"][0] == pytest.approx(measured.summary["flip_rate"][0], rel=0.05)
    assert found.frame["outside"].null_count() == 0


def test_what_cannot_be_predicted_is_refused() -> None:
    said = weakcell("--memory", "secded+sram-14nm:v_over_vmin=0.8", "--images", 5)
    assert said.exit_code == 2
    assert "whole words" in said.stderr.replace("\n", " ")
    with pytest.raises(UsageError, match="fail in groups"):
        predict(memory="sram-28nm-vc707:vdd=0.54", images=5)
