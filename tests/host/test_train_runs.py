"""Runs, grids, presets, checkpoints, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from weakcell.host.cli import app
from weakcell.host.cli.train import PRESET_NAMES
from weakcell.host.datasets import training
from weakcell.host.study.executors import WorkersLost
from weakcell.host.train import export, loop, training_grid
from weakcell.host.train.evaluation import EvaluationConfig, evaluate_network
from weakcell.host.train.layers import (
    clamp_latent,
    list_stored_layers,
)
from weakcell.host.train.losses import CrossEntropy
from weakcell.host.train.networks import ARCHITECTURES, fcnn
from weakcell.host.train.presets import PRESETS, expand_preset, find_preset
from weakcell.host.train.regularizer import find_threshold_neurons
from weakcell.host.train.settings import Run, expand_runs, parse_run, read_settings
from weakcell.host.train.train_run import train_run
from weakcell.host.train.training_grid import TrainingJob, train_runs
from weakcell.memmodels.errors import InputError, OutputError, UsageError

TINY = {"data": "digits", "width": 0.01, "batch": 64, "epochs": 1}
CONFIG = EvaluationConfig("ber=0,0.1,0.5", trials=2, batch=100, margin_images=50)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# ── settings ────────────────────────────────────────────────────────────────────────────────────────


def test_a_grid_is_every_combination_once() -> None:
    assert [run.tolerance for run in expand_runs(TINY, {"tolerance": ["none", "0.1,8"]})] == [None, (0.1, 8.0)]
    runs = expand_runs(TINY, {"flips": ["none", "uniform:ber=0.05"], "gradient": ["plain", "straight-through"], "seed": ["1", "2"]})
    assert len(runs) == 6
    assert [run.seed for run in runs[:2]] == [1, 2]
    assert len({run.name for run in runs}) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 3}, {"loss": "mse"}, {"epochs": 0}, {"width": -1}, {"data": "mnist"}, {"losses": "cel"},
        {"rate": "fast"}, {"tolerance": ["1"]}, {"output_scale": "big"}, {"output_scale": 0.0}, {"clip": -1}, {"patience": 0},
        {"ema": 1}, {"margin_warm_up": 2},
        {"quantizer": "min-max"},
    ],
)  # fmt: skip
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        parse_run({**TINY, **wrong})


def test_runs_of_earlier_versions_keep_their_identity() -> None:
    """The name is the one that version 203c8f8 gave."""
    assert parse_run({}).name == parse_run({"output_scale": "none"}).name == "fcnn_bnn_cel_seed1_48146bdc"
    assert parse_run({"output_scale": "1e-3"}).name.startswith("fcnn_bnn_cel_scale-0.001_seed1_")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_tables_and_options_win(name: str) -> None:
    preset = PRESETS[name]
    runs = expand_preset(preset, {}, {})
    assert len({run.name for run in runs}) == len(runs) == 3 * len(preset.widths) * (2 + len(preset.losses)) * len(preset.flips)
    head = list_stored_layers(ARCHITECTURES[runs[0].network]((3, 32, 32), 10, 1, 1.0))[-1][1]
    assert head.weight.shape[1] == preset.fan_in
    # The fair baselines: CEL with a learned output scale, and on logits/√K.
    assert all(any(run.loss == "cel" and run.output_scale == "papers" and run.seed == seed for run in runs) for seed in (1, 2, 3))
    small = expand_preset(preset, {"width": 0.25, "bits": 1, "epochs": 2}, {"seed": [5], "flips": ["none"]})
    assert {(run.width, run.bits, run.epochs, run.seed, run.flips) for run in small} == {(0.25, 1, 2, 5, None)}
    assert small[1].loss == f"cel:scale={(preset.fan_in / 4) ** -0.5:.6g}"


def test_presets_are_those_that_the_help_lists() -> None:
    assert tuple(PRESETS) == PRESET_NAMES
    with pytest.raises(UsageError, match="mcel-svhn"):
        find_preset("paper")


def test_settings_come_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "runs.toml"
    file.write_text('[run]\ndata = "digits"\ntolerance = [0.1, 8]\n[grid]\nloss = ["cel", "mhl:b=6%"]\n')
    runs = expand_runs(*read_settings(file))
    assert [run.loss for run in runs] == ["cel", "mhl:b=6%"]
    assert runs[0].tolerance == (0.1, 8.0)
    for text in ("[run]\nx = ", "[other]\na = 1\n", "[grid]\nseed = 1\n"):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"runs\.toml"):
            read_settings(file)


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_says_how_it_was_made() -> None:
    run = parse_run({**TINY, "loss": "margin-ce:m=25%,scale=0.5", "flips": "uniform:ber=0.02", "bits": 4, "seed": 5})
    made = train_run(run, training.load_training_digits(training.SHIPPED_FOLDER))
    facts = {entry.key: entry.value for entry in made.model.metadata_props}
    assert facts["dataset"] == "digits"
    assert facts["loss"] == "unclamped margin cross entropy, m = 9.375 of 0.5 x logits"
    assert facts["training_errors"] == "uniform:ber=0.02, straight-through gradient"
    assert Run.model_validate_json(facts["run"]) == run
    assert float(facts["test_accuracy"]) > 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flips": "uniform:ber=0.1"},
        {"bits": 4, "quantizer": "min-max", "flips": "uniform:ber=0.1", "output_scale": "papers"},
        {"loss": "mcel:m=8", "output_scale": "fan-in", "schedule": "cosine", "clip": 1.0, "patience": 2, "augment": "crops-flips"},
        {"loss": "mcel:m=8", "output_scale": "fan-in", "ema": 0.9, "margin_warm_up": 3},
    ],
)
def test_a_resumed_run_ends_as_an_unbroken_one(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = training.load_training_digits(training.SHIPPED_FOLDER)
    run = parse_run({**TINY, "epochs": 3, "width": 0.02, **settings})
    whole = train_run(run, data)
    checkpoint = tmp_path / "run.checkpoint"
    judge_accuracy, calls = loop.accuracy, []

    def power_cut(*arguments: np.ndarray) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judge_accuracy(*arguments)

    monkeypatch.setattr(loop, "accuracy", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, data, checkpoint)
    resumed = train_run(run, data, checkpoint)
    tensors = [{t.name: t.raw_data for t in made.model.graph.initializer} for made in (whole, resumed)]
    assert tensors[0] == tensors[1]
    assert [epoch.loss for epoch in resumed.epochs] == [epoch.loss for epoch in whole.epochs]
    with pytest.raises(InputError, match="another run"):
        train_run(run.model_copy(update={"seed": 9}), data, checkpoint)


def test_patience_ends_a_training_with_the_weights_of_its_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    data = training.load_training_digits(training.SHIPPED_FOLDER)
    accuracies = [0.2, 0.5, 0.4, 0.5, 0.3]
    states: list[torch.Tensor] = []
    network = fcnn((1, 8, 8), 10, 1, 0.01)

    def judge(logits: np.ndarray, labels: np.ndarray) -> float:
        states.append(network.dense1.weight.detach().clone())
        return accuracies[len(states) - 1]

    monkeypatch.setattr(loop, "accuracy", judge)
    epochs = loop.train(network, CrossEntropy(), loop.Schedule(9, 2, 64, patience=3), data.train.first(200), data.validation)
    assert [epoch.accuracy for epoch in epochs] == accuracies
    assert torch.equal(network.dense1.weight, states[1])
    assert not torch.equal(states[1], states[4])


def test_the_average_of_the_weights_is_validated_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is the average in NumPy over the weights after each step. The steps are those of a training without it."""
    data = training.load_training_digits(training.SHIPPED_FOLDER)
    steps, validated = [], []

    def record_step(network: torch.nn.Module) -> None:
        clamp_latent(network)
        steps.append(network.dense1.weight.detach().numpy().copy())

    def record_validation(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
        validated.append(network.dense1.weight.detach().numpy().copy())
        return np.zeros((len(images), 10))

    monkeypatch.setattr(loop, "clamp_latent", record_step)
    monkeypatch.setattr(loop, "logits", record_validation)
    records = []
    for decay in (None, 0.6):
        steps.clear()
        loop.seed(4)
        network = fcnn((1, 8, 8), 10, 1, 0.01)
        steps.append(network.dense1.weight.detach().numpy().copy())
        schedule = loop.Schedule(2, 2, 64, ema=decay)
        loop.train(network, CrossEntropy(), schedule, data.train.first(200), data.validation)
        records.append(np.array(steps))
    assert np.array_equal(*records)
    averages = [records[1][0]]
    for number, weights in enumerate(records[1][1:], 1):
        decay = min(0.6, (1 + number) / (10 + number))
        averages.append(decay * averages[-1] + (1 - decay) * weights)
    assert len(averages) == 9
    assert validated[2:] == [pytest.approx(averages[4], abs=1e-6), pytest.approx(averages[8], abs=1e-6)]
    assert network.dense1.weight.detach().numpy() == pytest.approx(averages[8], abs=1e-6)
    assert abs(averages[8] - records[1][-1]).max() > 1e-4


def test_a_margin_warms_up_evenly_and_stays() -> None:
    data = training.load_training_digits(training.SHIPPED_FOLDER)
    shares: list[float] = []
    schedule = loop.Schedule(3, 2, 64, margin_warm_up=2)
    network = fcnn((1, 8, 8), 10, 1, 0.01)
    loop.train(network, CrossEntropy(), schedule, data.train.first(200), data.validation, set_margin=shares.append)
    assert shares == pytest.approx([step / 8 for step in range(1, 9)])
    run = parse_run({**TINY, "epochs": 2, "loss": "mcel:m=8"})
    whole = train_run(run, data).epochs[0].loss
    assert train_run(run.model_copy(update={"margin_warm_up": 2}), data).epochs[0].loss < whole - 1


def test_augmented_images_are_shifted_or_mirrored_images() -> None:
    """Each is found, by search, among all cuts of its padded image; all places and both directions occur."""
    images = torch.randint(1, 256, (300, 2, 5, 6)).float()
    seen_places = set()
    for ours, image in zip(loop.shift_and_flip(images, flips=True, border=2).numpy(), images.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
        cuts = {(y, x, way): padded[:, y : y + 5, x : x + 6][:, :, ::way] for y in range(5) for x in range(5) for way in (1, -1)}
        seen_places |= {place for place, cut in cuts.items() if np.array_equal(cut, ours)}
        assert any(np.array_equal(cut, ours) for cut in cuts.values())
    assert len(seen_places) > 45
    assert {way for _, _, way in seen_places} == {1, -1}


def test_the_estimate_and_the_gradient_limit(capsys: pytest.CaptureFixture[str]) -> None:
    """Adam does not see the size of a gradient; plain steps of a network whose gradients are cut to a norm do."""
    data = training.load_training_digits(training.SHIPPED_FOLDER)
    norms = []

    class Watched(torch.nn.Module):
        def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            norms.append([p.grad.norm() for p in network.parameters() if p.grad is not None])
            return 1000 * torch.nn.functional.cross_entropy(logits, classes)

    network = fcnn((1, 8, 8), 10, 1, 0.01)
    loop.train(network, Watched(), loop.Schedule(1, 2, 64, decay="cosine", clip=0.5), data.train.first(640), data.validation)
    assert torch.stack(norms[1]).norm().item() == pytest.approx(0.5, rel=1e-3)
    assert "s an epoch" in capsys.readouterr().err


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.checkpoint").write_bytes(b"not a checkpoint")
    data = training.load_training_digits(training.SHIPPED_FOLDER)
    with pytest.raises(InputError, match="Going on"):
        train_run(parse_run(TINY), data, tmp_path / "run.checkpoint")


def test_a_grid_goes_on_where_it_stopped(tmp_path: Path) -> None:
    runs = expand_runs(TINY, {"loss": ["cel", "mhl:b=25%"], "bits": [1, 4]})
    reports: list[str] = []
    job = TrainingJob(training.load_training_data, CONFIG, threads=1, report=reports.append)
    first = train_runs(runs[:3], tmp_path, job, resume=False)
    with pytest.raises(OutputError, match="--resume"):
        train_runs(runs, tmp_path, job, resume=False)
    table = train_runs(runs, tmp_path, job, resume=True)
    assert len(reports) == 4
    assert table.head(3).equals(first)
    assert table["name"].to_list() == [run.name for run in runs]
    curves = pl.read_csv(tmp_path / "curves.csv")
    assert curves.height == 4 * 3 * 2
    record = json.loads((tmp_path / f"{runs[0].name}.json").read_text())
    assert record["validation_accuracy"] == pytest.approx(float(curves["accuracy"][0]), abs=1e-4)
    assert record["margin_share"] == pytest.approx(record["margin"] / 20)


def test_runs_in_processes_are_those_of_one_process(tmp_path: Path) -> None:
    """Files are equal to those of one process, byte for byte."""
    runs = expand_runs({**TINY, "images": 300}, {"seed": [1, 2]})
    said: list[str] = []
    alone = TrainingJob(training.load_training_data, CONFIG, threads=1)
    train_runs(runs, tmp_path / "alone", alone, resume=False)
    train_runs(runs, tmp_path / "together", replace(alone, processes=2, report=said.append), resume=False)
    assert [line.split(":")[0] for line in said] == ["2 runs on digits, 2 at a time", "1 of 2 finished", "2 of 2 finished"]
    for run in runs:
        for kind in ("onnx", "csv"):
            one, several = ((tmp_path / folder / f"{run.name}.{kind}").read_bytes() for folder in ("alone", "together"))
            assert one == several


def test_a_process_that_dies_ends_the_training_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: object) -> Iterator[Run]:
        raise BrokenProcessPool
        yield

    monkeypatch.setattr(training_grid, "call_in_processes", die)
    job = TrainingJob(training.load_training_data, CONFIG, processes=2)
    with pytest.raises(WorkersLost, match="--resume"):
        train_runs(expand_runs(TINY, {"seed": [1, 2]}), tmp_path, job, resume=False)


def test_runs_of_the_loss_once_called_mcel_are_neither_continued_nor_read_as_mcel(tmp_path: Path) -> None:
    """The names are those that the earlier version gave: digests of settings without L."""
    old = "fcnn_bnn_mcel_m256_seed1_b201b34d"
    run = parse_run({"loss": "mcel:m=256"})
    assert (run.loss, run.name) == ("mcel:m=256,L=100", "fcnn_bnn_mcel_m256_L100_seed1_" + run.name[-8:])
    assert run.legacy_name == parse_run({"loss": "margin-ce:m=256"}).legacy_name == old
    assert parse_run({"loss": "cel"}).legacy_name is parse_run({"loss": "mcel:m=256,L=50"}).legacy_name is None
    job = TrainingJob(training.load_training_data, CONFIG, threads=1)
    for kind, loss in (("json", "mcel:m=256"), ("checkpoint", "margin-ce:m=256")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{old}.{kind}").write_text("{}")
        with pytest.raises(OutputError, match=f"{old}.*margin-ce"):
            train_runs([parse_run({"loss": loss})], tmp_path / kind, job, resume=True)


def test_margins_in_the_record_are_torchs(tmp_path: Path) -> None:
    data = training.load_training_digits(training.SHIPPED_FOLDER)
    loop.seed(1)
    network = fcnn((1, 8, 8), 10, 1, 0.02)
    loop.train(network, CrossEntropy(), loop.Schedule(1, 1, 64), data.train, data.validation)
    model = export.pack(export.to_onnx(network, (1, 8, 8)), 1)
    onnx.save(model, tmp_path / "net.onnx")
    evaluation = evaluate_network(tmp_path / "net.onnx", "digits", data.validation, CONFIG, 1)
    ordered = np.sort(loop.logits(network, data.validation.images[:50]), axis=1)
    assert evaluation.margins.mean_margin == pytest.approx(float((ordered[:, -1] - ordered[:, -2]).mean()))


def test_hidden_neurons_but_the_first_layers_are_regularized() -> None:
    assert len(find_threshold_neurons(fcnn((1, 4, 4), 3, 1, 0.01))) == 1
    assert len(find_threshold_neurons(ARCHITECTURES["vgg7"]((3, 16, 16), 10, 1, 0.05))) == 6


# ── the command ─────────────────────────────────────────────────────────────────────────────────────


def test_command_trains_judges_and_prints_one_table(tmp_path: Path) -> None:
    options = ["--data", "digits", "--width", "0.01", "--epochs", "1", "--threads", "1", "--sweep", "ber=0,0.1", "--trials", "1"]
    grid_option = ["--grid", "loss=cel | mcel:rls=16%", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["train", *options, *grid_option])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("fcnn_bnn") == 4  # twice in the answer
    assert "MLM" in result.stdout
    runs = pl.read_csv(tmp_path / "out" / "runs.csv", schema_overrides={"id": pl.String})
    curves = pl.read_csv(tmp_path / "out" / "curves.csv", schema_overrides={"id": pl.String})
    means = {name: curves.filter(pl.col("id") == run)["accuracy"].mean() for run, name in runs.select("id", "name").rows()}
    assert "".join(result.stdout.split()).startswith(f"Bestundererrors:{max(means, key=lambda name: means[name])}")
    svg = (tmp_path / "out" / "training.svg").read_text(encoding="utf-8")
    assert all(words in svg for words in (*means, "training loss", "validation accuracy (%)", "accuracy under errors (%)"))
    assert len(list((tmp_path / "out").glob("*.onnx"))) == 2
    network = str(next((tmp_path / "out").glob("*.onnx")))
    emulated = CliRunner().invoke(app, ["emulate", network, "--memory", "uniform:ber=0.01", "--trials", "1"])
    assert "on digits (450 images)" in emulated.stdout, emulated.output
    listed = CliRunner().invoke(app, ["train", *options, *grid_option, "--dry-run"])
    assert listed.stdout.split() == [f"{path.stem}" for path in sorted((tmp_path / "out").glob("*.onnx"))]


@pytest.mark.parametrize(
    ("options", "code"),
    [(["--loss", "mse"], 2), (["--flips", "nothing"], 5), (["--grid", "loss"], 2), (["--data", "digits", "--device", "cuda"], 2)],
)
def test_command_refuses_what_it_cannot_do(tmp_path: Path, options: list[str], code: int) -> None:
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert CliRunner().invoke(app, ["train", *options, "--out", str(tmp_path / "out")]).exit_code == code
    assert not (tmp_path / "out").exists()


def test_name_of_a_run_is_a_file_name() -> None:
    """A profile's path in `flips` makes no folder, and long settings fit into a name of 255 bytes."""
    run = parse_run({"flips": "uniform:ber=0.05"})
    assert run.name == f"fcnn_bnn_cel_flips_uniform-ber0.05_seed1_{run.name[-8:]}"
    object.__setattr__(run, "flips", f"file:folder/{'x' * 300}.toml")
    assert "/" not in run.name
    assert len(run.name) < 200


@pytest.mark.parametrize("record", ["{", "[]", '{"run": 3}', "[" * 100_000, '"\\ud800"'])
def test_a_damaged_record_of_a_run_is_named(record: str, tmp_path: Path) -> None:
    (tmp_path / "fcnn_00000000.json").write_text(record)
    with pytest.raises(InputError, match=r"fcnn_00000000\.json"):
        training_grid.collect(tmp_path)
