"""`weakcell margins`: measure how far a network's predictions are from changing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weakcell.host.cli.options import Data, DataDir, DryRun, Images, JsonEvents, Model, Output, Quiet, Task

if TYPE_CHECKING:
    from weakcell.host.analysis.margins import MarginReport

_OUT = "Write margins.parquet (one row per image) and margins.json into this folder."
_CERTIFY = "Try to certify so many flips anywhere in the network (binarized networks only). 0: no certificates."


def margins(
    model: Model = "digits-bnn",
    data: Data = None,
    images: Images = None,
    task: Task = None,
    output: Output = None,
    certify: Annotated[int, typer.Option(min=0, help=_CERTIFY)] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help=_OUT, show_default=False)] = None,
    data_dir: DataDir = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Measure margins and tolerated flips of a network on data, and certify predictions, from one fault-free pass.

    \b
    Examples:
      weakcell margins digits-bnn --images 200
      weakcell margins net.onnx --data test.npz --certify 16 --out margins
    """
    from weakcell.host.cli.terminal import emit, errors_as_events, note, show_plan

    with errors_as_events(as_json):
        from weakcell.host.analysis.margins import write_margins
        from weakcell.host.api.bounds import margins as measure
        from weakcell.host.study.results_folder import make_folder

        if dry_run:
            from weakcell.emulator.tasks import Asked
            from weakcell.host.study.workload import open_workload

            count = len(open_workload(model, data, images, data_dir, asked=Asked(task, output)).dataset)
            certified = f", and certificates of up to {certify} flips" if certify else ""
            show_plan(f"Margins of {count} images from one pass{certified}.", as_json, images=count, certify=certify)
            return
        folder = make_folder(out, "margins.parquet")
        report = measure(model, data, certify=certify, images=images, task=task, output=output, data_dir=data_dir)
        if folder is not None:
            write_margins(report, folder, ["weakcell", *sys.argv[1:]])
    if as_json:
        emit(None, **report.as_dict())
    else:
        _show(report)
    if folder is not None:
        note(f"Results are in {folder}.", quiet or as_json)


def _show(report: MarginReport) -> None:
    from rich.table import Table

    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show

    show(report.title, "bold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in report.lines():
        table.add_row(name, value)
    show(table)
    if report.means.neurons:
        neurons = report.means.neurons
        shares = [[neuron.share_of_fan_in, neuron.share_of_output] for neuron in neurons]
        texts = [["" if share is None else f"{100 * share:.2f} %" for share in pair] for pair in shares]
        columns = [
            Column("hidden layer", [neuron.layer for neuron in neurons], left=True),
            Column("mean distance to threshold", [f"{neuron.distance:.2f}" for neuron in neurons], short="distance"),
            Column("flips tolerated", ["" if n.flips is None else f"{n.flips:.2f}" for n in neurons], short="flips"),
            Column("share of fan-in", [pair[0] for pair in texts], drop=1, short="of fan-in"),
            Column("share of largest sum", [pair[1] for pair in texts], drop=2, short="of max sum"),
        ]
        show_table(columns)
