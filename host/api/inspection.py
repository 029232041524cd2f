"""What a network is made of, and what it computes without faults: `load`, `inspect`, `infer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from weakcell.emulator.engine.executor import infer as run_network
from weakcell.emulator.ir.layers import Network
from weakcell.emulator.plan.plan import compile_plan
from weakcell.host.analysis.network_summary import NetworkSummary, summarize_network
from weakcell.host.datasets.input_range import InputRange, check_data, input_ranges
from weakcell.host.report.displayed_result import DisplayedResult
from weakcell.host.report.simple_figures import plot_bars
from weakcell.host.study.networks import ModelLike, find_model
from weakcell.memmodels.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]


def load(model: ModelLike, *, integer_input: bool | None = None) -> Network:
    """Import a network as integer layers.

    Args:
        model: The name of a shipped network (`digits-bnn`, `digits-qnn`, `fashion-bnn`), the path of an ONNX file, or an
            `onnx.ModelProto`.
        integer_input: For networks whose first layer has ±1 weights and a float input. None: as the file's metadata say, else True.
            False: the input stays float, and layers before the first binarization compute in float32.

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
    return find_model(model).load(integer_input=integer_input)


def inspect(model: ModelLike) -> Inspection:
    """Summarize a network: layers, encodings, stored bits, multiply-accumulates, and what lives in the memory.

    Args:
        model: A shipped name, the path of an ONNX file, an `onnx.ModelProto` or a network from `load`.

    Returns:
        The summary. `.frame` has one row per layer, `.storable` one per tensor that `place` can name.

    Raises:
        InputError: There is no such file or shipped network.
        ModelError: The ONNX model is invalid, or uses what is not supported.

    Examples:
        >>> import weakcell
        >>> summary = weakcell.inspect("digits-bnn")
        >>> summary.layers.weight_bits
        59616
        >>> summary.frame.filter(summary.frame["bits"] > 0).select("layer", "bits").rows()
        [('/conv1/Conv', 288), ('/conv2/Conv', 9216), ('/dense3/Gemm', 49152), ('/dense4/Gemm', 960)]
    """
    found = find_model(model)
    network = found.load()
    return Inspection(
        found.name, found.path.name if found.path else None, network, input_ranges(network), summarize_network(network)
    )


def infer(
    model: ModelLike,
    inputs: Array | Mapping[str, Array],
    *,
    probe: Sequence[str] = (),
    threads: int = 1,
    dynamic: Literal["batch", "image"] = "batch",
    label: str = "the inputs",
) -> dict[str, Array]:
    """Run a network without faults, in integers, on arrays of any batch size.

    Args:
        model: A shipped name, the path of an ONNX file, an `onnx.ModelProto` or a network from `load`.
        inputs: Images (n, …) for a network with one input, or arrays by input name.
        probe: Names of inner values to return as well.
        threads: Threads that share the images. The outputs do not depend on it.
        dynamic: Where `DynamicQuantizeLinear` takes its range from: all images (`batch`, as ONNX says) or each image (`image`,
            as `emulate` does).
        label: What messages call the inputs.

    Returns:
        Arrays (n, …) by output name, then those probed.

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
    network = find_model(model).load()
    given = inputs if isinstance(inputs, Mapping) else {network.inputs[0]: inputs} if len(network.inputs) == 1 else {"x": inputs}
    arrays = {name: np.asarray(array) for name, array in given.items()}
    if len(network.inputs) == 1 and network.inputs[0] not in arrays and "x" in arrays:
        arrays = {network.inputs[0]: arrays["x"]}
    for name, array in arrays.items():
        if array.dtype.kind not in "buif" or array.ndim < 1:
            raise InputError(f"Input {name!r} in {label}", f"it is {array.dtype}{list(array.shape)}", "Bring arrays of numbers")
    counts = {name: len(arrays[name]) for name in network.inputs if name in arrays}
    if len(set(counts.values())) > 1:
        raise InputError(f"Inputs in {label}", f"they hold {counts} images", "Bring equally many for each input")
    check_data(network, arrays, label)
    return run_network(compile_plan(network), arrays, tuple(probe), threads, dynamic)


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(DisplayedResult):
    """What a network is made of, and which of its bits a memory holds: from `inspect`.

    Attributes:
        name: The network's name.
        file: The ONNX file's name; None for a model in memory.
        network: The imported network.
        inputs: Each input with its shape, type and the range that its first quantizer covers.
        layers: Layers, storable tensors, and integers of the file that live in no memory.

    Examples:
        >>> import weakcell
        >>> weakcell.inspect("digits-bnn").layers.weight_bits
        59616
    """

    name: str
    file: str | None
    network: Network
    inputs: tuple[InputRange, ...]
    layers: NetworkSummary

    @property
    def title(self) -> str:
        """The network's name."""
        return self.name

    @property
    def headline(self) -> str:
        """Layers, stored weight bits and multiply-accumulates."""
        layers = self.layers
        return f"{self.name}: {len(layers.parts)} layers, {layers.weight_bits:,} weight bits, {layers.macs:,} MACs per image"

    @property
    def caption(self) -> str:
        """What lives in the memory and what does not."""
        read = (f"input {x.name}: {x.dtype} [N, {', '.join(map(str, x.shape))}], values {x.text}" for x in self.inputs)
        return f"{'; '.join(read)}. {self.layers.explanation}"

    @property
    def frame(self) -> pl.DataFrame:
        """One row per layer: what it computes, its output, weights, stored bits and multiply-accumulates."""
        return pl.DataFrame([vars(part) for part in self.layers.parts])

    @property
    def summary(self) -> pl.DataFrame:
        """The same as `frame`."""
        return self.frame

    @property
    def storable(self) -> pl.DataFrame:
        """Everything that `place` can put into a memory: name, role, encoding, elements, bits."""
        return pl.DataFrame([vars(item) for item in self.layers.storable])

    def build_figure(self) -> Figure:
        """Plot the stored weight bits of each layer."""
        parts = [part for part in self.layers.parts if part.bits]
        return plot_bars(self.title, "stored weight bits", [part.layer for part in parts], [part.bits for part in parts])
