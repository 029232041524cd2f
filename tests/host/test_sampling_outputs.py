"""`--sampling outputs` from the command line and from Python: told in every table, refused where flips are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from weakcell import emulate
from weakcell.emulator.faults.deployment import ReadPolicy, Sampling
from weakcell.host.report.captions import describe_study
from weakcell.host.study.runner import run_study
from weakcell.host.study.study import Study, resolve_study
from weakcell.host.validation.trials import validate_study
from weakcell.memmodels import parse_spec
from weakcell.memmodels.errors import UsageError

FEW = Study(
    memory=parse_spec("uniform:ber=0.02"), sweep=None, trials=2, images=20, read_every=ReadPolicy.IMAGE, sampling=Sampling.OUTPUTS
)


def test_tables_say_what_was_drawn() -> None:
    result = emulate(memory="uniform:ber=0.02", trials=2, images=20, read_every="image", sampling="outputs")
    frame, drawn = result.frame, result.resolved.points[0].by_outputs
    assert drawn
    assert frame["sampling"].unique().to_list() == ["outputs"]
    for column in ("flips", "flip_rate", *(f"flips[{name}]" for name in drawn)):
        assert frame[column].null_count() == len(frame)
    assert result.summary["flip_rate"].null_count() == 1
    caption = describe_study(result.resolved)
    assert "exact in distribution" in caption
    assert all(name in caption for name in drawn)
    rest = [name for name in result.resolved.network.tensors if f"flips[{name}]" in frame.columns and name not in drawn]
    assert all(frame[f"flips[{name}]"].null_count() == 0 for name in rest)


def test_bits_are_the_default_and_count() -> None:
    result = emulate(memory="uniform:ber=0.02", trials=1, images=5, read_every="image")
    assert result.frame["sampling"].to_list() == ["bits"]
    assert result.frame["flips"][0] > 0


@pytest.mark.parametrize("change", [{"read_every": ReadPolicy.LOAD}, {"memory": parse_spec("sram-14nm")}, {"model": "digits-qnn"}])
def test_refused_where_no_layer_allows_it(change: dict[str, object]) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match="no layer of this study allows it"):
        resolve_study(replace(FEW, **change))  # type: ignore[arg-type]


def test_fault_lists_are_refused() -> None:
    resolved = resolve_study(FEW)
    with pytest.raises(UsageError, match="draws no flips"):
        run_study(resolved, record=True)
    with pytest.raises(UsageError, match="draws no flips"):
        resolve_study(FEW, replays="00")


def test_validation_is_refused() -> None:
    with pytest.raises(UsageError, match="no flips to count"):
        validate_study(resolve_study(FEW))


def test_the_command_line_knows_it(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from weakcell.host.cli import app

    few = ["emulate", "--memory", "uniform:ber=0.02", "--trials", "1", "--images", "10", "--read-every", "image"]
    shown = CliRunner().invoke(app, [*few, "--sampling", "outputs", "--explain"])
    assert shown.exit_code == 0
    assert "exact in distribution" in " ".join(shown.output.split())
    refused = CliRunner().invoke(app, [*few, "--sampling", "outputs", "--save-faults", str(tmp_path / "flips.csv")])
    assert isinstance(refused.exception, UsageError) or refused.exit_code == 2
    assert not (tmp_path / "flips.csv").exists()
