"""Every example runs and answers its question. Truths: onnxruntime, fault-free results, theorems, orders that physics demands."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import weakcell

EXAMPLES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("test_"))


def run_example(name: str) -> object:
    """Run the `main` of an example and return its answer."""
    return importlib.import_module(f"tests.examples.{name}").main()


def test_every_example_is_tested_and_listed() -> None:
    """An example without a test below, or without a line in README.md, is an error."""
    tested = Path(__file__).read_text(encoding="utf-8")
    page = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    for name in EXAMPLES:
        assert f'run_example("{name}")' in tested, name
        assert f"({name}.py)" in page, name
    assert len(EXAMPLES) >= 12


def test_supply_voltage() -> None:
    """The lowest voltage lies inside the sweep, below nominal."""
    assert 0.8 <= run_example("supply_voltage") < 1.0


def test_own_network() -> None:
    """Without errors the emulator has the fault-free accuracy; at a bit error rate of 0.3 it has lost accuracy."""
    pytest.importorskip("torch")
    result = run_example("own_network")
    assert isinstance(result, weakcell.Emulation)
    means = result.summary["mean"].to_list()
    assert means[0] == result.frame["clean_accuracy"][0] > 0.95
    assert means[3] < means[0]


def test_exact_inference() -> None:
    """The reference is onnxruntime."""
    pytest.importorskip("onnxruntime")
    assert run_example("exact_inference") > 0.98


def test_which_bits() -> None:
    """The sign bit and SECDED help, unless detected words are erased."""
    accuracies = run_example("which_bits")
    assert isinstance(accuracies, dict)
    assert accuracies["SECDED, erase"] < accuracies["unprotected"] < min(accuracies["sign bit reliable"], accuracies["SECDED, raw"])


def test_which_layer() -> None:
    """All four layers are ranked, and each has been measured."""
    ranking = run_example("which_layer")
    assert isinstance(ranking, weakcell.Ranking)
    assert ranking.summary.height == 4
    assert ranking.summary["measured_per_flip"].null_count() == 0


def test_predict_or_inject() -> None:
    """The accuracy falls with the bit error rate."""
    prediction = run_example("predict_or_inject")
    assert isinstance(prediction, weakcell.Prediction)
    assert prediction.summary["accuracy"].is_sorted(descending=True)


def test_margins_of_answers() -> None:
    """Every margin of 200 images is reported."""
    report = run_example("margins_of_answers")
    assert isinstance(report, weakcell.MarginReport)
    assert report.frame.height == 200


def test_bounds_on_real_flips() -> None:
    """The bounds are theorems: no violation."""
    validation = run_example("bounds_on_real_flips")
    assert isinstance(validation, weakcell.Validation)
    assert validation.summary["violations"].sum() == 0


def test_operating_point() -> None:
    """A confirmed point saves energy."""
    optimum = run_example("operating_point")
    assert isinstance(optimum, weakcell.Optimum)
    assert optimum.chosen is None or optimum.saving > 0


def test_compare_memories() -> None:
    """Two networks on three memories at two operating points."""
    results = run_example("compare_memories")
    assert isinstance(results, weakcell.CampaignResults)
    assert results.summary.height == 12


def test_dram_timing() -> None:
    """A shorter activation time has more errors; the modules have none at 10 ns (Chang et al., SIGMETRICS 2016)."""
    results = run_example("dram_timing")
    assert isinstance(results, dict)
    for result in results.values():
        rates = result.summary["flip_rate"].to_list()
        assert rates[0] > rates[1] >= rates[2] == 0


def test_replay_flips() -> None:
    """A replay of the same flips has the same accuracy; fewer flips cost less."""
    study, replay, first_layer = run_example("replay_flips")  # type: ignore[misc]
    assert study == replay < first_layer


def test_measured_profile() -> None:
    """The profile has the flip rates of the normal distribution that made the read-backs."""
    result = run_example("measured_profile")
    assert isinstance(result, weakcell.Emulation)
    assert result.summary.height == 3


def test_virtual_board() -> None:
    """The lower voltage has more flips."""
    pytest.importorskip("unicorn")
    board = run_example("virtual_board")
    assert isinstance(board, weakcell.Characterization)


def test_train_tolerant() -> None:
    """Two networks are trained and evaluated."""
    pytest.importorskip("torch")
    result = run_example("train_tolerant")
    assert isinstance(result, weakcell.TrainingResult)
    assert result.frame.height == 2


def test_notebook(tmp_path: Path) -> None:
    """The notebook runs in a real Jupyter kernel, and every result shows a table and a picture."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(Path(__file__).with_name("voltage_scaling.ipynb"), as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pages = ["".join(output.data.get("text/html", "") for output in cell.outputs if "data" in output) for cell in notebook.cells
             if cell.cell_type == "code"]  # fmt: skip
    assert len(pages) == 5
    assert all("<table" in page for page in pages)
    assert sum("<img" in page or "<svg" in page for page in pages) >= 3
