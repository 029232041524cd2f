"""The names that `weakcell` promises: what they are, what they cost to import, and that each example in them runs."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import weakcell

EXPORTED = [
    "BoardError", "CampaignResults", "Characterization", "Emulation", "InputError", "Inspection", "Interrupted", "LinkError",
    "MarginReport", "Memory", "MemoryFault", "MemorySpecError", "ModelError", "Network", "Optimum", "OutputError", "Prediction",
    "Ranking", "Technology", "TrainingResult", "UsageError", "Validation", "VoltageRefused", "WeakcellError", "characterize",
    "emulate", "infer", "inspect", "load", "load_data", "margins", "memories", "open_memory", "optimize", "predict", "rank",
    "read_results", "sweep", "train", "validate",
]  # fmt: skip
FUNCTIONS = [name for name in EXPORTED if name.islower()]
HEAVY = ("numpy", "numba", "polars", "torch", "onnx", "matplotlib", "scipy", "pydantic", "plotly")


def test_exported_names() -> None:
    """A name that is added or removed changes this list on purpose."""
    assert sorted(weakcell.__all__) == EXPORTED
    assert all(hasattr(weakcell, name) for name in EXPORTED)
    assert set(EXPORTED) <= set(dir(weakcell))


def test_import_is_light() -> None:
    code = f"import sys, weakcell; print(*[name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_help_shows_every_name() -> None:
    text = subprocess.run(
        [sys.executable, "-c", "import weakcell; help(weakcell)"], capture_output=True, text=True, check=True
    ).stdout
    missing = [name for name in EXPORTED if f"{name}(" not in text and f"class {name}" not in text]
    assert not missing


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name: str) -> None:
    """Every argument has an entry under Args, and Returns, Raises and Example are there where they can be."""
    function = getattr(weakcell, name)
    text = inspect.getdoc(function) or ""
    parameters = inspect.signature(function).parameters
    assert [p for p in parameters if f"{p}: " not in text] == []
    assert not parameters or "\nArgs:\n" in text
    assert "\nReturns:\n" in text
    assert "\nExample:\n" in text
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 2


@pytest.mark.parametrize("name", EXPORTED)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples in the docstrings print what they say; doctest is the oracle."""
    if name == "train":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(recurse=False).find(getattr(weakcell, name), name):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
