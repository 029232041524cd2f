"""A network without faults: `load`, `infer`. This module loads no data frames, so that `weakcell infer` starts fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.batch_axis import as_in_the_file, images_first
from weakcell.emulator.engine.executor import infer as run_network
from weakcell.emulator.importer.standard_inputs import add_missing_inputs
from weakcell.emulator.ir.network import Network
from weakcell.emulator.plan.plan import compile_plan
from weakcell.host.datasets.input_range import check_data
from weakcell.host.study.networks import ModelLike, find_model
from weakcell.memmodels.errors import InputError

Array = npt.NDArray[Any]


def load(model: ModelLike, *, integer_input: bool | None = None, shapes: Mapping[str, int] | None = None) -> Network:
    """Import a network as integer layers.

    Args:
        model: The name of a shipped network (`digits-bnn`, `digits-qnn`, `fashion-bnn`), the path of an ONNX file, or an
            `onnx.ModelProto`.
        integer_input: For networks whose first layer has ±1 weights and a float input. None: as the file's metadata say, else True.
            False: the input stays float, and layers before the first binarization compute in float32.
        shapes: Sizes of dimensions that the file leaves open, by name: `{"height": 320}`. The batch needs none. Functions that take
            data find the sizes there.

    Returns:
        The network: layers in execution order, and each weight tensor as the memory stores it. Every function of Weakcell that
        takes a model takes it too.

    Raises:
        InputError: There is no such file or shipped network.
        ModelError: The ONNX model is invalid, or uses what is not supported.

    Examples:
        >>> import weakcell
        >>> network = weakcell.load("digits-bnn")
        >>> network.inputs, network.outputs, network.weight_bits
        (('input',), ('logits',), 59616)
    """
    return find_model(model).load(integer_input=integer_input, shapes=shapes)


def infer(
    model: ModelLike,
    inputs: Array | Mapping[str, Array],
    *,
    probe: Sequence[str] = (),
    threads: int = 1,
    dynamic: Literal["batch", "image"] = "image",
    shapes: Mapping[str, int] | None = None,
    label: str = "the inputs",
) -> dict[str, Array]:
    """Run a network without faults, in integers, on arrays of any batch size.

    Args:
        model: A shipped name, the path of an ONNX file, an `onnx.ModelProto` or a network from `load`.
        inputs: Images (n, …) for a network with one input, or arrays by input name. Sizes that the file leaves open are those of
            the arrays. Images lie along the axis where the file has its batch.
        probe: Names of inner values to return as well.
        threads: Threads that share the images. The outputs do not depend on it.
        dynamic: Where `DynamicQuantizeLinear` takes its range from: each image (`image`, as `emulate` does) or all images
            (`batch`, as ONNX says of a batch).
        shapes: Sizes of open dimensions, by name, that the arrays do not tell.
        label: What messages call the inputs.

    Returns:
        Arrays by output name, images along the axis where the file has its batch; then those probed, (n, …).

    Raises:
        InputError: An input is missing, is no array of numbers, or does not fit the network.
        ModelError: The ONNX model is invalid, or uses what is not supported.

    Examples:
        >>> import weakcell
        >>> digits = weakcell.load_data("digits")
        >>> outputs = weakcell.infer("digits-bnn", digits.x[:100])
        >>> {name: scores.shape for name, scores in outputs.items()}
        {'logits': (100, 10)}
        >>> outputs["logits"][:3].argmax(axis=1).tolist(), digits.y[:3].tolist()
        ([2, 0, 5], [2, 0, 5])
    """
    try:
        arrays = {name: np.asarray(array) for name, array in (inputs if isinstance(inputs, Mapping) else {"x": inputs}).items()}
    except ValueError:
        do = "Give the images as one array and without labels, or arrays by input name"
        raise InputError(f"Inputs in {label}", "they have parts of different shapes", do) from None
    network = find_model(model).load(shapes=shapes, like={name: array.shape for name, array in arrays.items()})
    if len(network.inputs) == 1 and network.inputs[0] not in arrays and "x" in arrays:
        arrays = {network.inputs[0]: arrays["x"]}
    for name, array in arrays.items():
        if array.dtype.kind not in "buif":
            raise InputError(f"Input {name!r} in {label}", f"it is {array.dtype}{list(array.shape)}", "Bring arrays of numbers")
    arrays = images_first(network, add_missing_inputs(network, arrays))
    for name in network.inputs:
        if name in arrays and arrays[name].ndim < 1:
            raise InputError(
                f"Input {name!r} in {label}", "it is a single number", "Bring an array, the first axis counting images"
            )
    counts = {name: len(arrays[name]) for name in network.inputs if name in arrays}
    if len(set(counts.values())) > 1:
        raise InputError(f"Inputs in {label}", f"they hold {counts} images", "Bring equally many for each input")
    check_data(network, arrays, label)
    return as_in_the_file(network, run_network(compile_plan(network), arrays, tuple(probe), threads, dynamic))
