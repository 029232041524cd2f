"""The public API: its names, its examples, the objects it accepts, and how results show themselves."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from typer.testing import CliRunner

import weakcell
from weakcell.host.cli import app
from weakcell.host.study.networks import SHIPPED_FOLDER

EXPORTED = [
    "BoardError", "CampaignResults", "Characterization", "Emulation", "InputError", "Inspection", "Interrupted", "LinkError",
    "MarginReport", "Memory", "MemoryFault", "MemorySpecError", "ModelError", "Network", "Optimum", "OutputError", "Prediction",
    "Ranking", "Technology", "TrainingResult", "UsageError", "Validation", "VoltageRefused", "WeakcellError", "characterize",
    "emulate", "infer", "inspect", "load", "load_data", "margins", "memories", "open_memory", "optimize", "predict", "rank",
    "read_results", "sweep", "train", "validate",
]  # fmt: skip
FUNCTIONS = [name for name in EXPORTED if name.islower()]
NETWORK = SHIPPED_FOLDER / "digits_qnn.onnx"
SETTINGS = {"memory": "uniform", "place": {"*@0": "uniform:ber=0.02"}, "trials": 2, "images": 40}
HEAVY = ("numpy", "numba", "polars", "torch", "onnx", "matplotlib", "scipy", "pydantic", "jinja2")


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
    assert "\nExamples:\n" in text
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


# ── every kind of object gives the numbers of the command line ───────────────────────────────────────


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The table that the command line writes: the oracle of the tests below."""
    out = tmp_path_factory.mktemp("command-line")
    options = ["--memory", "uniform", "--sweep", "ber=0.01,0.05", "--place", "*@0=uniform:ber=0.02", "--trials", "2"]
    said = CliRunner().invoke(
        app, ["emulate", str(NETWORK), "--data", "digits", *options, "--images", "40", "--out", str(out), "-q"]
    )
    assert said.exit_code == 0, said.output
    return pl.read_parquet(out / "results.parquet")


MODELS: dict[str, Callable[[], Any]] = {
    "path": lambda: NETWORK,
    "text": lambda: str(NETWORK),
    "ModelProto": lambda: onnx.load(NETWORK),
    "loaded": lambda: weakcell.load(NETWORK),
}


@pytest.mark.parametrize("kind", MODELS)
def test_networks(kind: str, expected: pl.DataFrame) -> None:
    result = weakcell.emulate(MODELS[kind](), "digits", sweep="ber=0.01,0.05", **SETTINGS)  # type: ignore[arg-type]
    assert_same_numbers(result.frame, expected)


@pytest.mark.parametrize("kind", ["arrays", "array and list", "data set", "file"])
def test_data(kind: str, expected: pl.DataFrame, tmp_path: Path) -> None:
    digits = weakcell.load_data("digits")
    np.savez(tmp_path / "digits.npz", x=digits.x, y=digits.y)
    data: Any = {
        "arrays": (digits.x, digits.y),
        "array and list": (digits.x, digits.y.tolist()),  # type: ignore[union-attr]
        "data set": digits,
        "file": tmp_path / "digits.npz",
    }[kind]
    result = weakcell.emulate(NETWORK, data, sweep="ber=0.01,0.05", **SETTINGS)  # type: ignore[arg-type]
    assert_same_numbers(result.frame, expected)


@pytest.mark.parametrize(
    "sweep",
    [{"ber": [0.01, 0.05]}, {"ber": np.array([0.01, 0.05])}, {"ber": "0.01:0.05:0.04"}, {"ber": (0.05, 0.01)}],
    ids=["list", "array", "text", "descending"],
)
def test_sweeps(sweep: Any, expected: pl.DataFrame) -> None:
    assert_same_numbers(weakcell.emulate(NETWORK, "digits", sweep=sweep, **SETTINGS).frame, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [{"*@0": {"name": "uniform", "ber": 0.02}}, ["*@0=uniform:ber=0.02"], "*@0=uniform:ber=0.02"])
def test_memories_and_placements(place: Any, expected: pl.DataFrame) -> None:
    settings = {**SETTINGS, "memory": {"name": "uniform", "ber": 0.5}, "place": place}
    assert_same_numbers(weakcell.emulate(NETWORK, "digits", sweep="ber=0.01,0.05", **settings).frame, expected)


def test_images_without_labels() -> None:
    result = weakcell.emulate(NETWORK, weakcell.load_data("digits").x[:20], memory="uniform:ber=0.1", trials=2)
    assert result.frame["accuracy"].null_count() == 2
    assert result.summary["score"].to_list() == ["unchanged"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": 3}, weakcell.UsageError),
        ({"model": "no-such-network.onnx"}, weakcell.InputError),
        ({"data": (np.zeros((3, 1, 8, 8)), [1, 2])}, weakcell.InputError),
        ({"data": np.full((3, 1, 8, 8), np.nan)}, weakcell.InputError),
        ({"memory": {"ber": 0.1}}, weakcell.MemorySpecError),
        ({"memory": {"name": "uniform", "bre": 0.1}}, weakcell.MemorySpecError),
        ({"sweep": {"ber": [0.1], "p01": [0.1]}}, weakcell.UsageError),
        ({"sweep": {"ber": []}}, weakcell.UsageError),
        ({"place": ["conv1"]}, weakcell.UsageError),
        ({"place": "conv1"}, weakcell.UsageError),
        ({"read_every": "never"}, weakcell.UsageError),
        ({"trials": 2.0}, weakcell.UsageError),
        ({"trials": "3"}, weakcell.UsageError),
        ({"seed": 1.5}, weakcell.UsageError),
        ({"images": 5.0}, weakcell.UsageError),
        ({"sampling": "some"}, weakcell.UsageError),
    ],
)
def test_what_cannot_be_understood_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        weakcell.emulate(**{"memory": "uniform:ber=0.1", "trials": 1, "images": 5, **arguments})


def assert_same_numbers(frame: pl.DataFrame, expected: pl.DataFrame) -> None:
    """All columns but the names that results give to network and data."""
    names = ("model", "data")
    assert frame.drop(names).equals(expected.drop(names))


# ── results show themselves ─────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    few: dict[str, Any] = {"images": 30}
    return {
        "Inspection": weakcell.inspect("digits-bnn"),
        "Emulation": weakcell.emulate(memory="uniform", sweep="ber=0.01,0.1", trials=2, record_faults=True, **few),
        "Prediction": weakcell.predict(memory="uniform:ber=0.1", samples=10, check_trials=2, **few),
        "Ranking": weakcell.rank(samples=10, **few),
        "MarginReport": weakcell.margins(**few),
        "Validation": weakcell.validate(trials=2, **few),
        "MemoryCatalogue": weakcell.memories(),
    }


@pytest.mark.parametrize(
    "name", ["Inspection", "Emulation", "Prediction", "Ranking", "MarginReport", "Validation", "MemoryCatalogue"]
)
def test_results_show_themselves(name: str, results: dict[str, Any], tmp_path: Path) -> None:
    result = results[name]
    assert type(result).__name__ == name
    assert repr(result).startswith(f"<{name} ")
    assert "\n" not in repr(result)
    page = result._repr_html_()
    assert page.count("<table>") == page.count("data:image/svg+xml;base64,") == 1
    assert ">nan<" not in page
    assert result.to_polars().equals(result.frame)
    assert result.summary.height
    figure = result.plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert "data:image/svg+xml" in figure._repr_html_()
    figure.draw_without_rendering()
    for axes in figure.axes:
        if legend := axes.get_legend():
            assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_pandas_is_optional(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(weakcell.UsageError, match="pip install pandas"):
        results["Ranking"].to_pandas()


def test_pandas_frames_have_the_same_rows(results: dict[str, Any]) -> None:
    pytest.importorskip("pandas")
    frame = results["Emulation"].to_pandas()
    assert frame["accuracy"].tolist() == results["Emulation"].frame["accuracy"].to_list()


def test_faults_are_saved_and_replayed(results: dict[str, Any], tmp_path: Path) -> None:
    """A replayed list gives the flips and accuracies of the run that made it."""
    result = results["Emulation"]
    assert result.fault_table.height == result.frame["flips"].sum()
    again = weakcell.emulate(faults=result.save_faults(tmp_path / "flips.parquet"))
    columns = ("sweep_value", "trial", "accuracy", "flips")
    assert again.frame.select(columns).equals(result.frame.select(columns))


def test_data_as_a_dict_are_those_of_a_pair(rng: np.random.Generator) -> None:
    x, y = rng.random((5, 3)), np.arange(5)
    pair, named = weakcell.load_data((x, y)), weakcell.load_data({"x": x, "y": y})
    assert np.array_equal(named.x, pair.x)
    assert np.array_equal(named.y, pair.y)
    assert weakcell.load_data({"x": x}).y is None


@pytest.mark.parametrize(
    "data",
    [
        [np.zeros((4, 3)), np.zeros(4)],
        (np.zeros((4, 3)), np.zeros(4), 1),
        {"y": np.zeros(4)},
        (np.zeros((4, 3)), np.array(["a"] * 4)),
    ],
)
def test_data_of_another_form_are_refused(data: object) -> None:
    with pytest.raises(weakcell.InputError):
        weakcell.load_data(data)  # type: ignore[arg-type]


def test_other_functions_refuse_what_they_cannot_understand() -> None:
    with pytest.raises(weakcell.UsageError, match="layer, bit, layer-bit"):
        weakcell.rank(NETWORK, "digits", memory="uniform:ber=0.01", by="layers", images=5)  # type: ignore[arg-type]
    with pytest.raises(weakcell.UsageError, match="max-drop 1%"):
        weakcell.optimize(NETWORK, "digits", max_drop="1%", images=5)  # type: ignore[arg-type]
    with pytest.raises(weakcell.InputError, match="without labels"):
        weakcell.infer(NETWORK, (np.zeros((4, 1, 8, 8)), np.zeros(4)))  # type: ignore[arg-type]
    with pytest.raises(weakcell.MemorySpecError) as refused:
        weakcell.emulate(NETWORK, "digits", memory=weakcell.open_memory("secded+uniform:ber=0.1"))  # type: ignore[arg-type]
    assert len(str(refused.value)) < 300


def test_arrays_that_are_not_used_are_named_where_labels_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    """Labels under another name would leave a score of unchanged answers that looks like an accuracy."""
    digits = weakcell.load_data("digits")
    images = {"x": digits.x[:20], "labels": digits.y[:20]}
    weakcell.emulate(NETWORK, images, memory="uniform:ber=0.1", trials=1)
    assert [record.getMessage() for record in caplog.records] == [
        "arrays: labels not used, and there are no labels; an array of labels is called y"
    ]
    caplog.clear()
    weakcell.emulate(NETWORK, {**images, "y": digits.y[:20]}, memory="uniform:ber=0.1", trials=1)
    assert not caplog.records


def test_arrays_that_are_no_input_of_the_network() -> None:
    with pytest.raises(weakcell.InputError, match="they have images, and the network reads input"):
        weakcell.emulate("digits-bnn", {"images": np.zeros((4, 1, 8, 8))}, memory="uniform:ber=0", trials=1)


def test_figures_have_known_endings(tmp_path: Path) -> None:
    result = weakcell.emulate("digits-bnn", memory="uniform:ber=0.01", trials=1, images=20)
    with pytest.raises(weakcell.OutputError, match="png"):
        result.plot(tmp_path / "figure.xyz")
    assert list(tmp_path.iterdir()) == []
