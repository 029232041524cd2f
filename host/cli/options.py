"""Options and arguments that several commands share; a command names them in its signature and gives the default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weakcell.emulator.faults.read_policy import Reads
from weakcell.host.cli.completion import complete_data, complete_network, complete_place

READS = "When weights are read again: once per trial (load), per batch, per image, or at each use (access)."
_DATA = "digits, fashion-mnist, cifar-10, svhn, imagenette, or an .npz with x and optionally y. [default: the network's own]"
_PLACE = "Put a layer or tensor, or some of its bits, into another memory, as in conv1@7=uniform:ber=0. Repeatable."
_TASK = (
    "What the output means: classes[:top=K], logit[:threshold=T], labels, tokens, pixels[:axis=last,ignore=255] or values. "
    "[default: from the graph and the labels]"
)
_OUTPUT = "The output that is scored. [default: the only one that fits]"
_SHAPE = "Size of a dimension that the file leaves open, where no data tell it, as in height=320. Repeatable."
_THREADS = "Results do not depend on it. [default: all cores]"

Model = Annotated[
    str, typer.Argument(autocompletion=complete_network, help="digits-bnn, digits-qnn, fashion-bnn, or an ONNX file.")
]
Data = Annotated[str | None, typer.Option(autocompletion=complete_data, help=_DATA, show_default=False)]
Place = Annotated[
    list[str] | None, typer.Option(metavar="LAYER=SPEC", autocompletion=complete_place, help=_PLACE, show_default=False)
]
Images = Annotated[int | None, typer.Option(help="Use only this many images, from the first one on.", show_default=False)]
Task = Annotated[str | None, typer.Option(metavar="TASK", help=_TASK, show_default=False)]
Output = Annotated[str | None, typer.Option(metavar="NAME", help=_OUTPUT, show_default=False)]
Shape = Annotated[list[str] | None, typer.Option(metavar="NAME=SIZE", help=_SHAPE, show_default=False)]
ReadEvery = Annotated[Reads, typer.Option(help=READS)]
Batch = Annotated[int, typer.Option(min=1, help="Images per batch, with --read-every batch.")]
Seed = Annotated[int, typer.Option(help="Seed of all dies and random draws.")]
DataDir = Annotated[Path | None, typer.Option(metavar="DIR", help="Look for data sets here first.", show_default=False)]
Threads = Annotated[int | None, typer.Option(min=1, help=_THREADS, show_default=False)]
JsonEvents = Annotated[bool, typer.Option("--json", help="Print NDJSON events on stdout instead of the table.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say what each number means and how it is known.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no notes.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and exit.")]


def read_shapes(given: list[str] | None) -> dict[str, int]:
    """Return the sizes of `--shape NAME=SIZE`. UsageError if one is no whole number above 0, or is given twice."""
    sizes: dict[str, int] = {}
    for text in given or ():
        name, _, size = text.rpartition("=")
        if name and name not in sizes and size.isascii() and size.isdigit() and 0 < int(size[:12]) < 1 << 31:
            sizes[name] = int(size)
            continue
        from weakcell.memmodels.errors import UsageError

        found = f"{name} has the size {sizes[name]} already" if name in sizes else "it is not NAME=SIZE with a whole number above 0"
        raise UsageError(f"--shape {text}", found, "Give each open dimension once, as in --shape height=320")
    return sizes
