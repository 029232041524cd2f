"""What a network is made of, and which of its bits a memory holds: `inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from weakcell.emulator.importer.ports import OpenSizesError
from weakcell.emulator.ir.network import Network
from weakcell.host.analysis.network_summary import NetworkSummary, summarize_network
from weakcell.host.datasets.input_range import InputRange, input_ranges
from weakcell.host.report.displayed_result import DisplayedResult
from weakcell.host.report.simple_figures import plot_bars
from weakcell.host.study.networks import Model, ModelLike, find_model
from weakcell.memmodels.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_ASSUMED = (32, 64, 128, 224, 256, 16, 8, 384, 512, 640, 1)
"""Sizes that `inspect` tries for dimensions that the file leaves open."""


def inspect(model: ModelLike, *, shapes: Mapping[str, int] | None = None) -> Inspection:
    """Summarize a network: layers, encodings, stored bits, multiply-accumulates, and what lives in the memory.

    Args:
        model: A shipped name, the path of an ONNX file, an `onnx.ModelProto` or a network from `load`.
        shapes: Sizes of dimensions that the file leaves open, by name. Without them, a size is assumed and named in the summary;
            stored bits do not depend on it.

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
    network, assumed = _load(found, dict(shapes or {}))
    file = found.path.name if found.path else None
    return Inspection(found.name, file, network, input_ranges(network), summarize_network(network), assumed)


def _load(model: Model, shapes: dict[str, int]) -> tuple[Network, dict[str, int]]:
    """Return the network, and the sizes that were assumed for open dimensions: the first of a few that fit the network."""
    try:
        return model.load(shapes=shapes), {}
    except OpenSizesError as error:
        for size in _ASSUMED:
            assumed = dict.fromkeys(error.names, size)
            try:
                return model.load(shapes=shapes | assumed), assumed
            except ModelError:
                continue
        raise


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(DisplayedResult):
    """What a network is made of, and which of its bits a memory holds: from `inspect`.

    Attributes:
        name: The network's name.
        file: The ONNX file's name; None for a model in memory.
        network: The imported network.
        inputs: Each input with its shape, type and the range that its first quantizer covers.
        layers: Layers, storable tensors, and integers of the file that live in no memory.
        assumed: Sizes that nobody gave for open dimensions of the file, by name.

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
    assumed: Mapping[str, int] = field(default_factory=dict)

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
        return f"{'; '.join(read)}. {self.sizes}{self.layers.explanation}"

    @property
    def sizes(self) -> str:
        """The sizes of dimensions that the file leaves open, in words."""
        if not self.network.sizes:
            return ""
        marks = {name: " (assumed)" if name in self.assumed else "" for name in self.network.sizes}
        given = ", ".join(f"{name} = {size}{marks[name]}" for name, size in self.network.sizes.items())
        do = f" --shape {next(iter(self.assumed))}=SIZE gives another size." if self.assumed else ""
        return f"Open dimensions: {given}.{do} "

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
