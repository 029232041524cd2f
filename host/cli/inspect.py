"""`weakcell inspect`: show the layers of a network, and which of its tensors a memory stores."""

from __future__ import annotations

from typing import Annotated

import typer

from weakcell.host.cli.options import Shape, read_shapes


def inspect(
    model: Annotated[str, typer.Argument(help="An ONNX file, or the name of a shipped network.")],
    storable: Annotated[bool, typer.Option("--storable", help="List everything that --place can put into a memory.")] = False,
    shape: Shape = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show layers, encodings, weight bits, multiply-accumulates, and what a memory does and does not store."""
    import json
    from dataclasses import asdict

    from weakcell.host.api.inspection import inspect as summarize

    inspection = summarize(model, shapes=read_shapes(shape))
    layers = inspection.layers
    if as_json:
        inputs = [asdict(known) for known in inspection.inputs]
        open_sizes = {"sizes": dict(inspection.network.sizes), "assumed_sizes": sorted(inspection.assumed)}
        typer.echo(json.dumps({"version": 1, "model": inspection.name, "inputs": inputs, **open_sizes, **layers.as_dict()}))
        return
    from rich.table import Table
    from rich.text import Text

    from weakcell.host.cli.terminal import show

    if storable:
        listed = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("role", "name", "stored as", "elements", "bits"):
            listed.add_column(heading, justify="right" if heading in ("elements", "bits") else "left", overflow="fold")
        for item in layers.storable:
            listed.add_row(item.role, item.name, item.encoding, f"{item.elements:,}", f"{item.bits:,}")
        show(listed)
        show("--place NAME=SPEC places one of these, --place ROLE:LAYER=SPEC all of a role of a layer; patterns: scale:*.", "dim")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("layer", "computes", "output", "weights", "bits", "MACs", "lives in"):
        table.add_column(heading, justify="right" if heading in ("bits", "MACs") else "left", overflow="fold")
    for part in layers.parts:
        bits, macs = f"{part.bits:,}" if part.bits else "", f"{part.macs:,}" if part.macs else ""
        homes = [f"{where}: {what}" for where, what in (("memory", part.stored), ("registers", part.kept)) if what]
        table.add_row(part.layer, part.computes, part.output, part.weights, bits, macs, "; ".join(homes))
    table.add_section()
    table.add_row("total", "", "", "", f"{layers.weight_bits:,}", f"{layers.macs:,}", "")
    show(Text.assemble((inspection.name, "bold"), f" ({inspection.file})"))
    for known in inspection.inputs:
        sizes = ", ".join(("N", *map(str, known.shape)))
        show(
            Text.assemble(
                ("input", "bold"), f" {known.name}: {known.dtype} [{sizes}], values {known.text}; quantizer: {known.quantizer}"
            )
        )
    show(table)
    show(f"{inspection.sizes}{layers.explanation}", "dim")
