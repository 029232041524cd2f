"""A plan: a network made ready for the kernels, compiled once and shared by all runs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from weakcell.emulator.ir.faultable import LayerConstant, collect_constants, storable
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import Storable, StoredTensor, storage_layout
from weakcell.emulator.plan.layout import KernelTensor, pack_constants, pack_weights
from weakcell.emulator.plan.workspace import SharedCache, WorkspacePool
from weakcell.memmodels.address import Layout, Words, as_words, pack
from weakcell.memmodels.errors import ModelError

CHUNK_BYTES = 2 << 20
"""What the largest value of a chunk of images may take, so that values stay in cache."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A network and its stored tensors in kernel order. Threads share it.

    The network and its tensors never change. `cache` and `workspaces` do: both are thread-safe, and both are empty after pickling.

    Attributes:
        network: the network.
        tensors: each stored tensor in kernel order, by name.
        storable: everything that can be placed in a memory, by name.
        constants: the storable constants of each layer, by the name of the layer's output.
        chunk_bytes: what the largest value of a chunk of images may take; chunks never change results.
        cache: what is computed once per plan: memory layouts, stored words, fused layers, the fault-free parameters.
        workspaces: what one run leaves to the next.
    """

    network: Network
    tensors: Mapping[str, KernelTensor]
    storable: Mapping[str, Storable]
    constants: Mapping[str, tuple[LayerConstant, ...]]
    chunk_bytes: int = CHUNK_BYTES
    cache: SharedCache = field(default_factory=SharedCache, repr=False)
    workspaces: WorkspacePool = field(default_factory=WorkspacePool, repr=False)

    def layout(self, name: str, planes: tuple[int, ...]) -> Layout:
        """Return how bit planes of a storable tensor or buffer lie in a memory."""
        return self.cache.get(("layout", name, planes), lambda: storage_layout(self.storable[name], planes))

    def stored(self, layout: Layout) -> Words:
        """Return the words that a memory holds for a layout of a stored tensor: uint64, read-only."""

        def pack_words() -> Words:
            tensor = self.tensors[layout.name].tensor
            shared = as_words(tensor.codes, layout)
            if shared is not None:
                return shared
            words = pack((tensor.codes > 0).view(np.uint8) if tensor.encoding.kind == "sign" else tensor.codes, layout)
            words.flags.writeable = False
            return words

        return self.cache.get(("stored", layout.name, layout.planes), pack_words)


def compile_plan(network: Network, *, chunk_bytes: int = CHUNK_BYTES) -> Plan:
    """Put every stored tensor of a network into kernel order.

    Args:
        network: the network.
        chunk_bytes: see `Plan.chunk_bytes`.

    Raises:
        ModelError: two layers share a weight tensor and need it in different layouts.
    """
    tensors: dict[str, KernelTensor] = {}
    for layer in network.layers:
        if isinstance(layer, Convolution):
            weights = pack_weights(network, layer)
            if not tensors.setdefault(layer.weight, weights).same_layout(weights):
                raise ModelError(
                    f"Layer {layer.name} with the weights {layer.weight}",
                    "another layer uses the same weights on inputs of another kind, which needs them in another order",
                    "Export the model with a weight tensor of its own for each of the two layers",
                )
    items = storable(network)
    for name, item in items.items():
        if isinstance(item, StoredTensor) and name not in tensors:
            tensors[name] = pack_constants(item)
    return Plan(network, tensors, items, collect_constants(network), chunk_bytes)
