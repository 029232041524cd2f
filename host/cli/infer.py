"""`weakcell infer`: run a network without faults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from weakcell.host.cli.completion import complete_network
from weakcell.host.cli.options import JsonEvents, Quiet, Shape, read_shapes


def infer(
    model: Annotated[str, typer.Argument(autocompletion=complete_network, help="An ONNX file, or the name of a shipped network.")],
    inputs: Annotated[Path, typer.Option("--input", metavar="IN.npz", help="Arrays by input name; x if there is one input.")],
    output: Annotated[Path, typer.Option("--out", "--output", metavar="OUT.npz", help="File of the outputs, by name.")],
    probe: Annotated[
        list[str] | None, typer.Option(metavar="TENSOR", help="Also write this tensor. Repeatable.", show_default=False)
    ] = None,
    shape: Shape = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that share the images; the outputs are the same.")] = 1,
    dynamic: Annotated[
        Literal["batch", "image"],
        typer.Option(help="What DynamicQuantizeLinear takes its range from: each image, as emulate does, or all, as ONNX says."),
    ] = "image",
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Run a network without faults, in integers, on arrays of any batch size.

    \b
    Example:
      weakcell infer digits-bnn --input images.npz --out logits.npz \\
          --probe /pool2/MaxPool_output_0
    """
    import numpy as np

    from weakcell.host.api.inference import infer as run
    from weakcell.host.cli.terminal import emit, errors_as_events, note
    from weakcell.host.datasets.registry import read_npz
    from weakcell.host.study.networks import find_model
    from weakcell.memmodels.atomic_files import check_writable, write_atomically

    with errors_as_events(as_json):
        find_model(model)
        arrays, shapes = read_npz(inputs), read_shapes(shape)
        check_writable(output)
        outputs = run(model, arrays, probe=probe or (), threads=threads, dynamic=dynamic, label=inputs.name, shapes=shapes)
        write_atomically(output, lambda file: np.savez_compressed(file, **outputs))  # type: ignore[arg-type]
    written = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in outputs.items()}
    if as_json:
        emit("outputs", file=str(output), arrays=written)
    else:
        listed = ", ".join(f"{name} {about['dtype']}{about['shape']}" for name, about in written.items())
        note(f"{output}: {listed}", quiet)
