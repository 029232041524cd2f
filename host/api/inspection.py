"""What a network is made of, and which of its bits a memory holds: `inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from weakcell.emulator.ir.layers import Network
from weakcell.host.analysis.network_summary import NetworkSummary, summarize_network
from weakcell.host.datasets.input_range import InputRange, input_ranges
from weakcell.host.report.displayed_result import DisplayedResult
from weakcell.host.report.simple_figures import plot_bars
from weakcell.host.study.networks import ModelLike, find_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
