"""`weakcell train`: train error-tolerant networks, export them to ONNX, and evaluate them on the emulator."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from weakcell.host.cli.completion import complete_memory
from weakcell.host.cli.options import JsonEvents, Quiet
from weakcell.host.train.loss_spec import list_examples

if TYPE_CHECKING:
    from weakcell.host.api.training import TrainingResult

_DATA = "digits, fashion-mnist, cifar-10, svhn or imagenette. [default: fashion-mnist]"
_NETWORK = "fcnn, vgg3, vgg7, mobilenetv2 or resnet18. [default: fcnn]"
_LOSS = (
    f"{list_examples()}. mcel is clamped to ±L, and mcel:rls=16% states m as m/(2L); margin-ce is the unclamped form that MCEL's "
    "paper rejects. scale=0.02 multiplies the logits; mhl:b=128,divide=b divides by b; b, and m of margin-ce and mml, also as a "
    "share of the largest output, m=12.5%. [default: cel]"
)
_FLIPS = "Memory SPEC whose errors are injected into the weights in training, as in uniform:ber=0.05."
_TOLERANCE = "WEIGHT,DISTANCE of the regularizer that keeps the sums of hidden neurons away from their thresholds."
_OUTPUT_SCALE = (
    "Train with a learnable factor of all outputs: its start, papers (0.001 for a BNN, 0.00001 for more bits) or fan-in. It "
    "changes no answer and is not exported. [default: none]"
)
_GRID = "Train every combination: KEY=VALUE | VALUE, as in --grid 'loss=cel | mcel:m=32' --grid 'seed=1 | 2 | 3'. Repeatable."
PRESET_NAMES = ("mcel-fashion-mnist", "mcel-svhn", "mcel-cifar-10", "mcel-imagenette", "date-fcnn", "date-vgg3", "date-vgg7")
_PRESET = (
    f"Train all runs of a table of the papers at full length, with three seeds: {', '.join(PRESET_NAMES)}. Other options win over "
    "it; --dry-run lists the runs."
)
_SWEEP = "Sweep of the memory that evaluates. [default: the preset's, or ber=0:0.35:0.01; CIFAR-10 ber=0:0.06:0.005]"
_PRECISION = "bfloat16 is faster on processors that compute with it, and many times slower on others. [default: float32]"

_RATES = ("ber", "p01", "p10")
"""Swept conditions that are shares of bits, and shown in percent."""
_COLUMNS = (
    "Accuracy in % at each error rate. Flips tolerated: in the last layer, on average.",
    "Logit margin (MLM): mean, after the training's output scale (equation 1 of MCEL).",
    "Raw margin: in integer sums. Share: of the largest possible sum.",
)


def train(
    settings: Annotated[Path | None, typer.Argument(metavar="[FILE.toml]", help="Tables [run] and [grid]; flags win.")] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help=_PRESET, show_default=False)] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of networks, records and tables.")] = Path("trained"),
    data: Annotated[str | None, typer.Option(help=_DATA, show_default=False)] = None,
    network: Annotated[str | None, typer.Option(help=_NETWORK, show_default=False)] = None,
    bits: Annotated[int | None, typer.Option(help="1 (BNN), 2, 4 or 8. [default: 1]", show_default=False)] = None,
    quantizer: Annotated[
        Literal["power-of-two", "min-max"] | None,
        typer.Option(help="Codes of weights of several bits; min-max are MCEL's. [default: power-of-two]", show_default=False),
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="Factor of the numbers of channels and neurons. [default: 1]", show_default=False)
    ] = None,
    loss: Annotated[str | None, typer.Option(metavar="SPEC", help=_LOSS, show_default=False)] = None,
    flips: Annotated[
        str | None, typer.Option(metavar="SPEC", autocompletion=complete_memory, help=_FLIPS, show_default=False)
    ] = None,
    gradient: Annotated[
        Literal["straight-through", "plain"] | None,
        typer.Option(help="Gradient of flipped weights. [default: straight-through]", show_default=False),
    ] = None,
    tolerance: Annotated[str | None, typer.Option(metavar="W,D", help=_TOLERANCE, show_default=False)] = None,
    output_scale: Annotated[str | None, typer.Option(metavar="START", help=_OUTPUT_SCALE, show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(help="[default: 10]", show_default=False)] = None,
    halve_every: Annotated[
        int | None, typer.Option(help="Halve the learning rate every so many epochs. [default: 2]", show_default=False)
    ] = None,
    schedule: Annotated[
        Literal["step", "cosine"] | None,
        typer.Option(help="step halves the learning rate, cosine lowers it to 0. [default: step]", show_default=False),
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of all gradients together.", show_default=False)] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better validation accuracy; keep the best.", show_default=False),
    ] = None,
    augment: Annotated[
        Literal["crops", "crops-flips"] | None,
        typer.Option(help="Shift the training images at random; crops-flips mirrors half of them too.", show_default=False),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Average the weights exponentially, as in 0.999 per step, and export the average.", show_default=False),
    ] = None,
    margin_warm_up: Annotated[
        int | None,
        typer.Option(metavar="EPOCHS", help="Let the margin of the loss rise from 0 over so many epochs.", show_default=False),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step. [default: 256]", show_default=False)] = None,
    rate: Annotated[
        float | None, typer.Option(help="Learning rate of Adam at the start. [default: 0.001]", show_default=False)
    ] = None,
    images: Annotated[int | None, typer.Option(help="Only the first so many training images.", show_default=False)] = None,
    precision: Annotated[Literal["float32", "bfloat16"] | None, typer.Option(help=_PRECISION, show_default=False)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the weights, image order and flips. [default: 1]", show_default=False)
    ] = None,
    grid: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUES", help=_GRID, show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in a folder with finished or interrupted runs.")] = False,
    part: Annotated[
        Literal["validation", "test"],
        typer.Option(help="Images that evaluate: validation to choose settings, test for final figures."),
    ] = "validation",
    sweep: Annotated[str | None, typer.Option(metavar="KEY=VALUES", help=_SWEEP, show_default=False)] = None,
    memory: Annotated[str, typer.Option(metavar="SPEC", autocompletion=complete_memory, help="Memory that evaluates.")] = "uniform",
    trials: Annotated[int, typer.Option(min=1, help="Passes over the images per operating point.")] = 2,
    data_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to look for data sets first.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of torch and of the evaluation; the result of training depends on it.")
    ] = 2,
    processes: Annotated[
        int, typer.Option(min=1, help="Train so many runs of a grid or preset at a time, each with its own threads.")
    ] = 1,
    qonnx: Annotated[bool, typer.Option("--qonnx", help="Write each network as NAME.qonnx.onnx too, for FINN or hls4ml.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the settings, list the runs and leave.")] = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Train networks that tolerate bit errors, export them to ONNX, and evaluate them on the emulator.

    Each run writes a network (.onnx), its record (.json) and its accuracies under errors (.csv) into DIR. training.svg and .png
    show loss and accuracy over the epochs, and accuracy under errors. Prints one table.
    Needs `pip install 'weakcell[train]'`.

    \b
    Examples:
      weakcell train --data digits --network vgg3 --width 0.25 \\
          --loss mcel:m=32,scale=0.1 --out trained
      weakcell train --loss mhl:b=128 --flips uniform:ber=0.05 --epochs 8 \\
          --precision bfloat16
      weakcell train --grid 'loss=cel | mhl:b=128 | mcel:m=32' \\
          --grid 'flips=none | uniform:ber=0.05' --out grid
      weakcell train runs.toml --out grid --resume --part test
      weakcell train --preset mcel-fashion-mnist --device cuda --part test \\
          --out table --resume
    """
    from weakcell.host.api.training import check_torch, list_runs
    from weakcell.host.api.training import train as train_networks
    from weakcell.host.cli.terminal import emit, errors_as_events, note

    check_torch()
    given = {
        "data": data, "network": network, "bits": bits, "quantizer": quantizer, "width": width,
        "loss": loss, "flips": flips, "gradient": gradient,
        "tolerance": tolerance, "output_scale": output_scale, "epochs": epochs, "halve_every": halve_every,
        "schedule": schedule, "clip": clip, "patience": patience, "augment": augment, "ema": ema,
        "margin_warm_up": margin_warm_up, "batch": batch, "rate": rate, "images": images, "precision": precision, "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    several = dict(_grid_of(text) for text in grid or ())
    with errors_as_events(as_json):
        if dry_run:
            for run in list_runs(settings, several, given, preset):
                if as_json:
                    emit("run", name=run.name)
                else:
                    typer.echo(run.name)
            return
        result = train_networks(
            settings, preset=preset, out=out, grid=several, part=part, memory=memory, sweep=sweep, trials=trials,
            data_dir=data_dir, device=device,
            threads=threads, processes=processes, resume=resume, qonnx=qonnx, notify=partial(note, quiet=quiet or as_json), **given,
        )  # fmt: skip
    if as_json:
        for row in result.frame.iter_rows(named=True):
            emit("trained", **row)
        return
    _show(result, out)


def _show(result: TrainingResult, out: Path) -> None:
    """Print the best run, and the table of all runs: accuracy at a few points, mean logit margin, flips tolerated, time."""
    from weakcell.host.cli.result_table import duration
    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show
    from weakcell.host.study.sweep_values import parse_sweep
    from weakcell.host.train.training_grid import select_accuracies

    key, points = parse_sweep(result.sweep).key, parse_sweep(result.sweep).values
    wanted = [points[round(step * (len(points) - 1) / 5)] for step in range(6)] if len(points) > 6 else list(points)
    accuracies = {row[0]: row[1:] for row in select_accuracies(out, wanted).iter_rows()}
    rows = list(result.frame.iter_rows(named=True))
    columns = [Column("run", [row["name"] for row in rows], left=True)]
    for index, point in enumerate(wanted):
        values = [accuracies[row["id"]][index] for row in rows]
        cells = ["" if value is None else f"{100 * value:.2f}" for value in values]
        heading = f"{100 * point:g} %" if key in _RATES else f"{key}={point:g}"
        columns.append(Column(heading, cells, drop=0 if index in (0, len(wanted) - 1) else 4 + index))
    columns += [
        Column(
            "logit margin",
            ["" if row["margin_scaled"] is None else f"{row['margin_scaled']:.4g}" for row in rows],
            drop=2,
            short="MLM",
        ),
        Column("raw margin", [f"{row['margin']:.5g}" for row in rows], drop=2, short="raw"),
        Column("share of largest", [f"{100 * row['margin_share']:.1f} %" for row in rows], drop=3, short="share"),
        Column("flips tolerated", [f"{row['output_flips']:.1f}" for row in rows], drop=1, short="flips"),
        Column("time", [duration(row["train_seconds"]) for row in rows], drop=4),
    ]
    show(result.answer, "bold")
    show_table(columns)
    for line in _COLUMNS:
        show(line, "dim")


def _grid_of(text: str) -> tuple[str, list[str]]:
    from weakcell.memmodels.errors import UsageError

    key, equals, values = text.partition("=")
    listed = [value.strip() for value in values.split("|")]
    if not (key.strip() and equals and all(listed)):
        raise UsageError(f"--grid {text!r}", "it is not KEY=VALUE | VALUE", "Write it as in --grid 'loss=cel | mcel:m=32'")
    return key.strip().replace("-", "_"), listed
