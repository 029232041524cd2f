"""A plan: a network made ready for the kernels, compiled once; and the parameters of one run of it.

For every stored tensor the plan holds its values in kernel order and the way from storage order to kernel order. A run
works on its own copy (`Parameters`), because faults are put into it in place and taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from emulator.constants import Constant, as_read, constants_of, storable
from emulator.kernels.scatter import flip_signs, flip_values
from emulator.kernels.tile import LANES
from emulator.network import Convolution, Encoding, Layer, Network, Storable, StoredTensor, ValueSpec
from emulator.storage import codes_of
from memmodels.address import Layout, Words, pack, set_bits
from memmodels.errors import ModelError


@dataclass(frozen=True, eq=False)
class KernelTensor:
    """A stored tensor as its kernel reads it.

    values: uint64 words of packed signs, or integers. Element e of the storage order lies at outer[e // n] + inner[e % n], n being
    inner.size (both int64): a bit of the packed words, or an index into the flattened integers. flat: packed signs that keep the
    storage order within an output channel, so that faults are put in word by word; their layer flattens its input instead.
    """

    tensor: StoredTensor
    values: npt.NDArray[np.generic]
    outer: npt.NDArray[np.int64]
    inner: npt.NDArray[np.int64]
    flat: bool = False

    @property
    def packed(self) -> bool:
        return bool(self.values.dtype == np.uint64)

    @property
    def encoding(self) -> Encoding:
        return self.tensor.encoding


@dataclass(frozen=True, eq=False)
class Plan:
    """A network and its tensors in kernel order. Immutable: runs in several threads share it.

    storable: everything that can be placed, by name. constants: those of each layer, by the value that the layer makes.
    """

    network: Network
    tensors: dict[str, KernelTensor]
    storable: Mapping[str, Storable]
    constants: Mapping[str, tuple[Constant, ...]]
    _stored: dict[tuple[str, tuple[int, ...]], Words] = field(default_factory=dict, repr=False)

    def stored(self, layout: Layout) -> Words:
        """The words that a memory is asked to hold for a layout of one of the tensors; made once."""
        key = layout.name, layout.planes
        if key not in self._stored:
            tensor = self.tensors[layout.name].tensor
            self._stored[key] = pack(codes_of(tensor.values, tensor.encoding), layout)
        return self._stored[key]

    def parameters(self, placed: Collection[str] = ()) -> Parameters:
        """A run's own copy of what a memory may make faulty. placed: names of what lives in one."""
        network, values = self.network, {name: aligned_copy(tensor.values) for name, tensor in self.tensors.items()}
        mine = {c.tensor.name for own in self.constants.values() for c in own} & {*placed}
        return Parameters(self, values, network.values, network.tensors, frozenset(mine), {})


@dataclass(frozen=True, eq=False)
class Parameters:
    """The tensors of one run in kernel order; faults come and go by `flip`.

    specs, tensors: the network's, with the zero points and scales that a layer reads. constants: those that live in a memory.
    dropped: packed signs that count as 0 at present, as words in storage order.
    """

    plan: Plan
    values: dict[str, npt.NDArray[np.generic]]
    specs: Mapping[str, ValueSpec]
    tensors: Mapping[str, StoredTensor]
    constants: frozenset[str]
    dropped: dict[str, Words]

    def flip(self, name: str, planes: tuple[int, ...], flips: Words) -> None:
        """Flip the cells set in `flips` (storage order, of the region that holds `planes`); flipping again takes them back."""
        kernel = self.plan.tensors[name]
        if kernel.packed:
            flip_signs(self.values[name], kernel.outer, kernel.inner, kernel.flat, flips)
        else:
            signed = kernel.encoding.kind in ("signed", "float")
            wide = np.array(planes, dtype=np.int64)
            flip_values(self.values[name], kernel.outer, kernel.inner, wide, kernel.encoding.bits, signed, flips)

    def drop(self, name: str, cells: Words) -> Callable[[], None]:
        """Let the signs set in `cells` (storage order) count as 0; returns the function that brings them back."""
        kernel = self.plan.tensors[name]
        if kernel.packed:
            self.dropped[name] = cells
            return lambda: self.dropped.__delitem__(name)
        channel, rest = np.divmod(set_bits(cells), kernel.inner.size)
        places, flat = kernel.outer[channel] + kernel.inner[rest], self.values[name].reshape(-1)
        held = flat[places]
        flat[places] = 0

        def bring_back() -> None:
            flat[places] = held

        return bring_back

    def ternary(self, name: str) -> npt.NDArray[np.generic]:
        """Packed signs as the integer kernels take them, with 0 for those that are dropped."""
        kernel, bits = self.plan.tensors[name], np.unpackbits(self.values[name].view(np.uint8), bitorder="little")
        signs = 2 * bits[(kernel.outer[:, None] + kernel.inner).reshape(-1)].astype(np.int32) - 1
        signs[set_bits(self.dropped[name])] = 0
        weights = replace(kernel.tensor, values=signs.reshape(kernel.tensor.values.shape))
        return _integers(weights, blocked=True).values

    def as_read(self, layer: Layer) -> tuple[Layer, Parameters]:
        """The layer, and the parameters that it sees, with those of its constants that live in a memory as they are now."""
        own = [c for c in self.plan.constants.get(layer.output, ()) if c.tensor.name in self.constants]
        if not own:
            return layer, self
        read = as_read(layer, self.plan.network, {c: self.values[c.tensor.name] for c in own})
        return read.layer, replace(self, specs=read.specs, tensors=read.tensors)


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
    everything = storable(network)
    for name, tensor in everything.items():
        if isinstance(tensor, StoredTensor) and name not in tensors:
            dtype = np.int64 if tensor.encoding.bits > 31 and tensor.encoding.kind == "unsigned" else np.int32
            tensors[name] = KernelTensor(
                tensor, tensor.values.astype(dtype), np.arange(tensor.values.size), np.zeros(1, dtype=np.int64)
            )
    return Plan(network, tensors, everything, constants_of(network))


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
        return _packed_signs(tensor, is_flat(network, layer))
    blocked = kind != "float" and layer.groups == 1
    return _integers(tensor, blocked)


def is_flat(network: Network, layer: Convolution) -> bool:
    """Whether a layer of packed signs sees each image as one vector: a matrix product behind Flatten."""
    window, size = layer.window, network.values[layer.inputs[0]].height_width
    return window.kernel == size and not any(window.pads) and window.dilation == (1, 1)


def _packed_signs(tensor: StoredTensor, flat: bool) -> KernelTensor:
    """Signs -> [blocks][taps * words][LANES] words (see `kernels/binary.py`); flat: all taps and channels are one row of bits."""
    outputs, channels, taps = _shape(tensor)
    if flat:
        channels, taps = channels * taps, 1
    words, blocks = -(-channels // 64), -(-outputs // LANES)
    o, (c, tap) = np.arange(outputs), np.ix_(np.arange(channels), np.arange(taps))
    outer = (o // LANES * (taps * words) * LANES + o % LANES) * 64
    inner = ((tap * words + c // 64) * LANES * 64 + c % 64).reshape(-1)
    bits = np.zeros(blocks * taps * words * LANES * 64, dtype=np.uint8)
    bits[outer[:, None] + inner] = tensor.values.reshape(outputs, -1) > 0
    values = np.packbits(bits, bitorder="little").view(np.uint64).reshape(blocks, taps * words, LANES)
    return KernelTensor(tensor, values, outer, inner, flat)


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
