"""One default of the read policy for every entry: command line, Python, campaign files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

import weakcell
from weakcell import emulator
from weakcell.emulator.faults.read_policy import DEFAULT_POLICY, DEFAULT_READS, ReadPolicy
from weakcell.emulator.prediction import predict as predict_points
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.cli import app
from weakcell.host.study.arguments import build_study
from weakcell.host.study.study import Study


@pytest.mark.parametrize(
    ("entry", "parameter"),
    [
        (emulator.deploy, "policy"),
        (emulator.run_trial, "policy"),
        (predict_points, "policy"),
        (weakcell.emulate, "read_every"),
        (weakcell.predict, "read_every"),
        (Study, "read_every"),
    ],
)
def test_python(entry: Callable[..., Any], parameter: str) -> None:
    assert inspect.signature(entry).parameters[parameter].default == DEFAULT_POLICY


@pytest.mark.parametrize("name", ["emulate", "optimize", "predict", "rank", "validate"])
def test_command_line(name: str) -> None:
    command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined, arg-type]
    (option,) = [parameter for parameter in command.params if parameter.name == "read_every"]
    assert option.default in (None, DEFAULT_READS)
    if option.default is None:
        assert f"[default: {DEFAULT_READS}]" in option.help
    assert build_study().read_every is DEFAULT_POLICY


def test_campaign_files(tmp_path: Path) -> None:
    path = tmp_path / "campaign.toml"
    path.write_text('[[network]]\nmodel = "digits-bnn"\n[[memory]]\nspec = "sram-14nm"\n', encoding="utf-8")
    assert read_campaign(path).table.read_every == [DEFAULT_READS]


def test_policies_are_those_that_are_written() -> None:
    assert {str(policy) for policy in ReadPolicy} == {"load", "batch", "image", "access"}
    assert ReadPolicy(DEFAULT_READS) is DEFAULT_POLICY
