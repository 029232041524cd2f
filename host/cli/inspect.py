"""`weakcell inspect`: show the layers of a network, and which of its tensors a memory stores."""

from __future__ import annotations

from typing import Annotated

import typer

from weakcell.host.cli.options import JsonEvents, Quiet, Shape, read_shapes


def inspect(
    model: Annotated[str, typer.Argument(help="An ONNX file, or the name of a shipped network.")],
    storable: Annotated[bool, typer.Option("--storable", help="List everything that --place can put into a memory.")] = False,
    shape: Shape = None,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Show layers, encodings, weight bits, multiply-accumulates, and what a memory does and does not store."""
    from dataclasses import asdict

    from weakcell.host.api.inspection import inspect as summarize
    from weakcell.host.cli.terminal import emit

    inspection = summarize(model, shapes=read_shapes(shape))
    layers = inspection.layers
    if as_json:
        inputs = [asdict(known) for known in inspection.inputs]
        open_sizes = {"sizes": dict(inspection.network.sizes), "assumed_sizes": sorted(inspection.assumed)}
        emit(None, model=inspection.name, inputs=inputs, **open_sizes, **layers.as_dict())
        return
    from rich.text import Text

    from weakcell.host.cli.tables import Column, show_table
    from weakcell.host.cli.terminal import show

    if storable:
        items = layers.storable
        columns = [
            Column("role", [item.role for item in items], left=True),
            Column("name", [item.name for item in items], left=True),
            Column("stored as", [item.encoding for item in items], left=True, drop=1),
            Column("elements", [f"{item.elements:,}" for item in items], drop=2),
            Column("bits", [f"{item.bits:,}" for item in items]),
        ]
        show_table(columns)
        if not quiet:
            show(
                "--place NAME=SPEC places one of these, --place ROLE:LAYER=SPEC all of a role of a layer; patterns: scale:*.", "dim"
            )
        return
    parts = layers.parts
    homes = [
        "; ".join(f"{where}: {what}" for where, what in (("memory", part.stored), ("registers", part.kept)) if what)
        for part in parts
    ]
    columns = [
        Column("layer", [*(part.layer for part in parts), "total"], left=True),
        Column("computes", [*(part.computes for part in parts), ""], left=True, drop=3),
        Column("output", [*(part.output for part in parts), ""], left=True, drop=5),
        Column("weights", [*(part.weights for part in parts), ""], left=True, drop=2),
        Column("bits", [*(f"{part.bits:,}" if part.bits else "" for part in parts), f"{layers.weight_bits:,}"]),
        Column("MACs", [*(f"{part.macs:,}" if part.macs else "" for part in parts), f"{layers.macs:,}"], drop=4),
        Column("lives in", [*homes, ""], left=True, drop=1),
    ]
    show(Text.assemble((inspection.name, "bold"), f" ({inspection.file})"))
    for known in inspection.inputs:
        sizes = ", ".join(("N", *map(str, known.shape)))
        show(
            Text.assemble(
                ("input", "bold"), f" {known.name}: {known.dtype} [{sizes}], values {known.text}; quantizer: {known.quantizer}"
            )
        )
    show_table(columns)
    if not quiet:
        show(f"{inspection.sizes}{layers.explanation}", "dim")
