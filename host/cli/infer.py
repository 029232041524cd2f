"""`weakcell infer`: fault-free integer inference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def infer(
    model: Annotated[str, typer.Argument(help="An ONNX file, or the name of a shipped network.")],
    inputs: Annotated[Path, typer.Option("--input", metavar="IN.npz", help="Arrays by input name; x if there is one input.")],
    output: Annotated[Path, typer.Option(metavar="OUT.npz", help="Where the outputs go, by name.")],
    probe: Annotated[
        list[str] | None, typer.Option(metavar="TENSOR", help="Also write this value. Repeatable.", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that share the images; the outputs are the same.")] = 1,
    dynamic: Annotated[
        Literal["batch", "image"],
        typer.Option(help="What DynamicQuantizeLinear takes its range from: all images, as ONNX says, or each, as emulate does."),
    ] = "batch",
) -> None:
    """Run a network without faults, in integers, on arrays of any batch size.

    \b
    Example:
      weakcell infer net.onnx --input images.npz --output logits.npz --probe relu1_out
    """
    import numpy as np

    from weakcell import emulator
    from weakcell.host.atomic_files import check_writable, write_atomically
    from weakcell.host.datasets.input_range import check_data
    from weakcell.host.datasets.registry import read_npz
    from weakcell.host.study.networks import find_model
    from weakcell.memmodels.errors import InputError

    network = emulator.load(find_model(model).path)
    arrays = read_npz(inputs)
    if len(network.inputs) == 1 and network.inputs[0] not in arrays and "x" in arrays:
        arrays = {network.inputs[0]: arrays["x"]}
    for name, array in arrays.items():
        if array.dtype.kind not in "buif" or array.ndim < 1:
            raise InputError(f"Input {name!r} in {inputs}", f"it is {array.dtype}{list(array.shape)}", "Bring arrays of numbers")
    counts = {name: len(arrays[name]) for name in network.inputs if name in arrays}
    if len(set(counts.values())) > 1:
        raise InputError(f"Inputs in {inputs}", f"they hold {counts} images", "Bring equally many for each input")
    check_writable(output)
    check_data(network, arrays, inputs.name)
    made = emulator.infer(emulator.compile_plan(network), arrays, tuple(probe or ()), threads, dynamic)

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **made)  # type: ignore[arg-type]

    write_atomically(output, save)
