"""`weakcell rank` and `weakcell margins`: parts of a network by what a flip costs, and margins image by image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from weakcell import margins
from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.host.analysis.ranking import rank_parts, split_placement
from weakcell.host.cli import app
from weakcell.host.study.study import Study, resolve_study
from weakcell.memmodels.catalogue import parse_spec

STUDY = Study(
    model="digits-qnn", memory=parse_spec("uniform:ber=0.3"), sweep=None, images=200, read_every=ReadPolicy.BATCH, batch=25
)


def test_parts_cover_every_placed_bit_once() -> None:
    resolved = resolve_study(STUDY)
    whole = resolved.points[0].placement
    for by, count in (("layer", 4), ("bit", 8), ("layer-bit", 32)):
        parts = split_placement(resolved, whole, by)  # type: ignore[arg-type]
        assert len(parts) == count
        cells = [(slot.tensor, plane) for _, own in parts for slot in own.slots for plane in slot.planes]
        assert sorted(cells) == sorted((slot.tensor, plane) for slot in whole.slots for plane in slot.planes)


def test_predicted_ranks_are_those_of_injection() -> None:
    found = rank_parts(resolve_study(STUDY), "bit", samples=15, trials=12)
    assert [part.name for part in found.parts[:2]] == ["bit 7", "bit 6"]
    assert found.correlation is not None
    assert found.correlation > 0.75
    top = found.parts[0]
    assert top.measured is not None
    assert top.low is not None
    assert top.high is not None
    assert top.low - 0.04 < top.loss < top.high + 0.04
    assert top.flips == pytest.approx(0.3 * top.bits)
    assert rank_parts(resolve_study(STUDY), "layer", samples=2).correlation is None


def test_the_commands(tmp_path: Path) -> None:
    few = ["--images", "40", "--json"]
    said = CliRunner().invoke(app, ["rank", "digits-bnn", "--samples", "2", "--memory", "uniform:ber=0.1", *few])
    assert said.exit_code == 0, said.output
    events = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(events) == 5
    assert [e["loss_per_flip"] for e in events[:4]] == sorted((e["loss_per_flip"] for e in events[:4]), reverse=True)
    said = CliRunner().invoke(app, ["margins", "digits-bnn", "--certify", "3", "--out", str(tmp_path), *few])
    assert said.exit_code == 0, said.output
    told, frame = json.loads(said.stdout), pl.read_parquet(tmp_path / "margins.parquet")
    assert told["mean_margin"] == pytest.approx(frame["margin"].mean())
    assert (frame.filter(pl.col("margin") > 0)["exact"] >= frame.filter(pl.col("margin") > 0)["certified"]).all()
    assert (frame["bound"] <= frame["exact"]).all()
    assert CliRunner().invoke(app, ["margins", "digits-qnn", "--certify", "3", "--images", "4"]).exit_code == 4
    plain = CliRunner().invoke(app, ["margins", "digits-qnn", "--images", "20"])
    assert "mean logit margin" in plain.stdout


def test_margins_of_wide_weights_have_no_stated_bound() -> None:
    found = margins("digits-qnn", images=30)
    assert found.frame["bound"].null_count() == found.frame["certified"].null_count() == 30
    assert np.isfinite(found.frame["margin"].to_numpy()).all()
