"""A plan: a network made ready for the kernels, compiled once; and the parameters of one run of it.

For every stored tensor the plan holds its values in kernel order and the way from storage order to kernel order. A run
works on its own copy (`Parameters`), because faults are put into it in place and taken out again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator.kernels.scatter import flip_packed, flip_values
from emulator.kernels.tile import LANES
from emulator.network import Convolution, Encoding, Layer, Network, StoredTensor
from memmodels.address import Words
from memmodels.errors import ModelError


@dataclass(frozen=True, eq=False)
class KernelTensor:
    """A stored tensor as its kernel reads it.

    values: uint64 words of packed signs, or integers. Element e of the storage order lies at outer[e // n] + inner[e % n], n being
    inner.size (both int64): a bit of the packed words, or an index into the flattened integers.
    """

    tensor: StoredTensor
    values: npt.NDArray[np.generic]
    outer: npt.NDArray[np.int64]
    inner: npt.NDArray[np.int64]

    @property
    def packed(self) -> bool:
        return bool(self.values.dtype == np.uint64)

    @property
    def encoding(self) -> Encoding:
        return self.tensor.encoding


@dataclass(frozen=True, eq=False)
class Plan:
    """A network and its tensors in kernel order. Immutable: runs in several threads share it."""

    network: Network
    tensors: dict[str, KernelTensor]

    def parameters(self) -> Parameters:
        """A run's own copy of what a memory may make faulty."""
        return Parameters(self, {name: aligned_copy(tensor.values) for name, tensor in self.tensors.items()})


@dataclass(frozen=True, eq=False)
class Parameters:
    """The tensors of one run in kernel order; faults come and go by `flip`."""

    plan: Plan
    values: dict[str, npt.NDArray[np.generic]]

    def flip(self, name: str, planes: tuple[int, ...], flips: Words) -> None:
        """Flip the cells set in `flips` (storage order, of the region that holds `planes`); flipping again takes them back."""
        kernel = self.plan.tensors[name]
        if kernel.packed:
            flip_packed(self.values[name], kernel.outer, kernel.inner, flips)
        else:
            signed = kernel.encoding.kind == "signed"
            wide = np.array(planes, dtype=np.int64)
            flip_values(self.values[name], kernel.outer, kernel.inner, wide, kernel.encoding.bits, signed, flips)


def compile_plan(network: Network) -> Plan:
    """Put every stored tensor of a network into kernel order."""
    tensors: dict[str, KernelTensor] = {}
    for layer in network.layers:
        if isinstance(layer, Convolution):
            ready = _weights(network, layer)
            known = tensors.setdefault(layer.weight, ready)
            if known.values.shape != ready.values.shape or known.values.dtype != ready.values.dtype:
                raise ModelError(
                    f"Layer {layer.name} with the weights {layer.weight}",
                    "another layer uses the same weights on inputs of another kind, which needs them in another order",
                    "Export the model with a weight tensor of its own for each of the two layers",
                )
    for name, tensor in network.tensors.items():
        if name not in tensors:
            dtype = np.int64 if tensor.encoding.bits > 31 and tensor.encoding.kind == "unsigned" else np.int32
            tensors[name] = KernelTensor(
                tensor, tensor.values.astype(dtype), np.arange(tensor.values.size), np.zeros(1, dtype=np.int64)
            )
    return Plan(network, tensors)


def last_uses(layers: Sequence[Layer], keep: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Per layer, the values that nobody needs any more once it has run."""
    last = {name: position for position, layer in enumerate(layers) for name in (*layer.inputs, layer.output)}
    return tuple(
        tuple(name for name, end in last.items() if end == position and name not in keep) for position in range(len(layers))
    )


def _weights(network: Network, layer: Convolution) -> KernelTensor:
    tensor = network.tensors[layer.weight]
    kind = network.values[layer.inputs[0]].kind
    if kind == "bits" and tensor.encoding.kind == "sign" and layer.groups == 1:
        return _packed_signs(tensor)
    blocked = kind != "float" and layer.groups == 1
    return _integers(tensor, blocked)


def _packed_signs(tensor: StoredTensor) -> KernelTensor:
    """Signs -> [blocks][taps * words][LANES] words (see `kernels/binary.py`)."""
    outputs, channels, taps = _shape(tensor)
    words, blocks = -(-channels // 64), -(-outputs // LANES)
    o, (c, tap) = np.arange(outputs), np.ix_(np.arange(channels), np.arange(taps))
    outer = (o // LANES * (taps * words) * LANES + o % LANES) * 64
    inner = ((tap * words + c // 64) * LANES * 64 + c % 64).reshape(-1)
    bits = np.zeros(blocks * taps * words * LANES * 64, dtype=np.uint8)
    bits[outer[:, None] + inner] = tensor.values.reshape(outputs, -1) > 0
    values = np.packbits(bits, bitorder="little").view(np.uint64).reshape(blocks, taps * words, LANES)
    return KernelTensor(tensor, values, outer, inner)


def _integers(tensor: StoredTensor, blocked: bool) -> KernelTensor:
    """Integers -> int16 [blocks][taps * C/2][LANES][2] (see `kernels/integer.py`), or [O][taps * C] where not blocked."""
    outputs, channels, taps = _shape(tensor)
    o, (c, tap) = np.arange(outputs), np.ix_(np.arange(channels), np.arange(taps))
    if blocked:
        pairs, blocks = -(-channels // 2), -(-outputs // LANES)
        outer = (o // LANES * (taps * pairs) * LANES + o % LANES) * 2
        inner = ((tap * pairs + c // 2) * LANES * 2 + c % 2).reshape(-1)
        values = np.zeros((blocks, taps * pairs, LANES, 2), dtype=np.int16)
    else:
        outer, inner = o * (taps * channels), (tap * channels + c).reshape(-1)
        values = np.zeros((outputs, taps * channels), dtype=np.int16)
    values.reshape(-1)[outer[:, None] + inner] = tensor.values.reshape(outputs, -1)
    return KernelTensor(tensor, values, outer, inner)


def _shape(tensor: StoredTensor) -> tuple[int, int, int]:
    """Output channels, input channels of a group, taps of a weight tensor (O, C, kh, kw)."""
    outputs, channels, height, width = tensor.values.shape
    return outputs, channels, height * width


def aligned_copy(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A copy that starts at a multiple of 64 bytes, so that no vector load crosses a cache line."""
    room = np.empty(array.nbytes + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
