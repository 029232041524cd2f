"""A plan: a network made ready for the kernels, compiled once; and the parameters of one run of it.

For every stored tensor the plan holds its values in kernel order and the way from storage order to kernel order. A run
has its own copy of what faults are put into, in place, and taken out of again (`Parameters`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.faultable import Constant, as_read, constants_of, names_of, storable
from weakcell.emulator.ir.layers import Convolution, Encoding, Layer, Network, Storable, StoredTensor, ValueSpec
from weakcell.emulator.ir.storage import codes_of, layout_of
from weakcell.emulator.kernels.entry_points import flip_rows, flip_values, scatter_codes
from weakcell.emulator.kernels.weight_layouts import (
    LANES,
    DepthwiseInt8x4,
    Int8x4,
    Int16x2,
    PackedInt1,
    PackedInt2,
    PackedInt4,
    StorageOrder,
    inverted_bits,
    subbyte_slots,
)
from weakcell.emulator.plan.workspace import Spare
from weakcell.memmodels.address import Layout, Words, pack, set_bits
from weakcell.memmodels.errors import ModelError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class KernelTensor:
    """A stored tensor as its kernel reads it.

    form: which of `tile.LAYOUTS` the values are in, or None: integers in an order of their own. order: where the elements of the
    storage went. masks: for each stored bit, what its flip does to the integer, or to the bit of a packed sign. offset: what was
    taken from unsigned codes to make them fit; it counts as a zero point. flat: see `StorageOrder.flat`.
    """

    tensor: StoredTensor
    form: type | None
    values: npt.NDArray[np.generic]
    order: StorageOrder
    masks: npt.NDArray[np.int64]
    offset: int = 0

    @property
    def packed(self) -> bool:
        """Whether the values are signs, 64 to a word."""
        return self.form is PackedInt1

    @property
    def flat(self) -> bool:
        return self.order.flat


@dataclass(frozen=True, eq=False)
class Plan:
    """A network and its tensors in kernel order. Immutable: runs in several threads share it.

    storable: everything that can be placed, by name. constants: those of each layer, by the value that the layer makes.
    fused: what `fusion.steps_of` found. spare: what runs have made for themselves, for the next ones.
    """

    network: Network
    tensors: dict[str, KernelTensor]
    storable: Mapping[str, Storable]
    constants: Mapping[str, tuple[Constant, ...]]
    fused: dict[frozenset[str], tuple[Layer, ...]] = field(default_factory=dict, repr=False)
    spare: Spare = field(default_factory=Spare, repr=False)
    _stored: dict[tuple[str, tuple[int, ...]], Words] = field(default_factory=dict, repr=False)
    _layouts: dict[tuple[str, tuple[int, ...]], Layout] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """What travels: not what was worked out for runs, which holds addresses."""
        return {name: x for name, x in self.__dict__.items() if name != "faultless"}

    def layout(self, name: str, planes: tuple[int, ...]) -> Layout:
        """How bit planes of something that can be placed lie in a memory."""
        key = name, planes
        if key not in self._layouts:
            self._layouts[key] = layout_of(self.storable[name], planes)
        return self._layouts[key]

    def stored(self, layout: Layout) -> Words:
        """The words that a memory is asked to hold for a layout of one of the tensors; made once, and read-only."""
        key = layout.name, layout.planes
        if key not in self._stored:
            tensor = self.tensors[layout.name].tensor
            words = pack(codes_of(tensor.values, tensor.encoding), layout)
            words.flags.writeable = False
            self._stored[key] = words
        return self._stored[key]

    def parameters(self, placed: Collection[str] = ()) -> Parameters:
        """What a run of its own works with. placed: names of what lives in a memory."""
        network, values = self.network, {name: tensor.values for name, tensor in self.tensors.items()}
        mine = {c.tensor.name for own in self.constants.values() for c in own} & {*placed}
        return Parameters(self, values, network.values, network.tensors, frozenset(mine))

    @cached_property
    def faultless(self) -> Parameters:
        """What runs without faults share; nobody flips it."""
        return self.parameters()


@dataclass(frozen=True, eq=False)
class Parameters:
    """The tensors of one run in kernel order; faults come and go by `flip`.

    values: the plan's, but for those that were changed (`own`). specs, tensors: the network's, with the zero points and scales that
    a layer reads. constants: those that live in a memory. dropped: packed signs that count as 0 at present, as words in storage
    order. derived: what layers work out from the values as they are (`derive`). ranges: lowest and highest number of float values
    that are quantized dynamically over a whole batch, by name; the others are quantized image by image.
    """

    plan: Plan
    values: dict[str, npt.NDArray[np.generic]]
    specs: Mapping[str, ValueSpec]
    tensors: Mapping[str, StoredTensor]
    constants: frozenset[str] = frozenset()
    dropped: dict[str, Words] = field(default_factory=dict)
    derived: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    _readers: dict[str, set[tuple[str, str]]] = field(default_factory=dict, repr=False)
    _holders: dict[str, set[tuple[str, str]]] = field(default_factory=dict, repr=False)
    _rooms: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Elsewhere, what layers work out is worked out anew: it holds addresses."""
        return {**self.__dict__, "derived": {}, "_readers": {}, "_holders": {}}

    def own(self, name: str) -> npt.NDArray[np.generic]:
        """The values of a tensor, for this run to change."""
        clean, room = self.exchange(name)
        if room is not clean:
            room[...] = clean
        return room

    def exchange(self, name: str) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
        """The values of a tensor, and the run's own room for them, which stands in their place from now on."""
        clean = self.values[name]
        if name not in self._rooms:
            self._rooms[name] = aligned_empty(clean.shape, clean.dtype)
        self._move(name, self._rooms[name])
        return clean, self.values[name]

    def settle(self, name: str, room: npt.NDArray[np.generic]) -> None:
        """Let the run have this room for a tensor, whatever is in it: its values from now on."""
        self._rooms[name] = room
        self._move(name, room)

    def _move(self, name: str, room: npt.NDArray[np.generic]) -> None:
        if self.values[name] is not room:
            self.values[name] = room
            for key in self._holders.pop(name, ()):
                self.derived.pop(key, None)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Forget what was worked out from the values of a tensor, since they have changed."""
        for key in self._readers.pop(name, ()):
            self.derived.pop(key, None)

    def restore(self, names: Collection[str]) -> None:
        """Take all faults of these tensors out again."""
        for name in names:
            self._move(name, self.plan.tensors[name].values)
        if self.dropped:
            self.dropped.clear()
            self.derived.clear()

    def derive(self, layer: Layer, what: str, make: Callable[[], T], weight: Callable[[], bool] = lambda: True) -> T:
        """What `make` works out for a layer, kept until a tensor changes that the layer reads.

        weight: whether the values of its weights count, too, or only where they lie.
        """
        key = layer.name, what
        if key not in self.derived:
            self.derived[key], counts = make(), weight()
            weights = layer.tensor_names("weight")
            for name in names_of(layer, self.plan.constants):
                keys = self._readers if counts or name not in weights else self._holders
                keys.setdefault(name, set()).add(key)
        made: T = self.derived[key]
        return made

    def flip(self, name: str, planes: tuple[int, ...], flips: Words) -> None:
        """Flip the cells set in `flips` (storage order, of the region that holds `planes`); flipping again takes them back."""
        kernel = self.plan.tensors[name]
        order = kernel.order
        if kernel.flat:
            flip_rows(*self.exchange(name), order.inner.size, flips)
        else:
            flip_values(self.own(name), order.outer, order.inner, kernel.masks[list(planes)], flips)

    def drop(self, name: str, cells: Words) -> Callable[[], None]:
        """Let the signs set in `cells` (storage order) count as 0; returns the function that brings them back."""
        kernel = self.plan.tensors[name]
        self.derived.clear()
        if kernel.form is PackedInt1:
            self.dropped[name] = cells

            def bring_back() -> None:
                del self.dropped[name]
                self.derived.clear()

            return bring_back
        channel, rest = np.divmod(set_bits(cells), kernel.order.inner.size)
        values = self.own(name)
        places = (kernel.order.outer[channel] + kernel.order.inner[rest]) // (8 * values.itemsize)
        flat = values.reshape(-1)
        held = flat[places]
        flat[places] = 0

        def restore() -> None:
            flat[places] = held
            self.derived.clear()

        return restore

    def ternary(self, layer: Convolution) -> KernelTensor:
        """A layer's packed signs as bytes, with 0 for those that are dropped."""

        def make() -> KernelTensor:
            kernel = self.plan.tensors[layer.weight]
            bits = np.unpackbits(self.values[layer.weight].view(np.uint8), bitorder="little")
            signs = 2 * bits[(kernel.order.outer[:, None] + kernel.order.inner).reshape(-1)].astype(np.int32) - 1
            signs[set_bits(self.dropped[layer.weight])] = 0
            tensor = replace(kernel.tensor, values=signs.reshape(kernel.tensor.values.shape))
            return _integers(tensor, Int8x4, joined_taps(layer), 1)

        return self.derive(layer, "ternary", make)

    def integers(self, name: str) -> npt.NDArray[Any]:
        """Return the integers of a tensor as they are, flat, in the order of the storage; dropped signs are 0."""
        kernel = self.plan.tensors[name]
        stored = integers_of(kernel, self.values[name])
        if name in self.dropped:
            stored[set_bits(self.dropped[name])] = 0
        return stored

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
            if known.form is not ready.form or not _same_order(known.order, ready.order):
                raise ModelError(
                    f"Layer {layer.name} with the weights {layer.weight}",
                    "another layer uses the same weights on inputs of another kind, which needs them in another order",
                    "Export the model with a weight tensor of its own for each of the two layers",
                )
    everything = storable(network)
    for name, tensor in everything.items():
        if isinstance(tensor, StoredTensor) and name not in tensors:
            dtype = np.int64 if tensor.encoding.bits > 31 and tensor.encoding.kind == "unsigned" else np.int32
            tensors[name] = _plain(tensor, tensor.values.astype(dtype), np.arange(tensor.values.size), np.zeros(1, dtype=np.int64))
    return Plan(network, tensors, everything, constants_of(network))


def _same_order(a: StorageOrder, b: StorageOrder) -> bool:
    return a.flat == b.flat and np.array_equal(a.outer, b.outer) and np.array_equal(a.inner, b.inner)


def integers_of(kernel: KernelTensor, values: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
    """Return values in kernel order as the integers that they mean, flat, in the order of the storage."""
    places = (kernel.order.outer[:, None] + kernel.order.inner).reshape(-1)
    if kernel.form is None:
        return np.asarray(values.reshape(-1)[places // (8 * values.itemsize)])
    if kernel.form is PackedInt1:
        bits = np.unpackbits(values.view(np.uint8).reshape(-1), bitorder="little")[places]
        return np.asarray(2 * bits.astype(np.int32) - 1)
    if kernel.form is Int16x2:
        return np.asarray(values.reshape(-1)[places // 16].astype(np.int32) + kernel.offset)
    width = 8 // subbyte_slots(kernel.form)
    held = (values.view(np.uint8) ^ np.uint8(inverted_bits(kernel.form))).reshape(-1)[places // 8]
    codes = (held >> (places % 8).astype(np.uint8)).astype(np.int32) & ((1 << width) - 1)
    return np.asarray(codes - ((codes >> (width - 1)) << width) + kernel.offset)


def last_uses(layers: Sequence[Layer], keep: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Per layer, the values that nobody needs any more once it has run."""
    last = {name: position for position, layer in enumerate(layers) for name in (*layer.inputs, layer.output)}
    return tuple(
        tuple(name for name, end in last.items() if end == position and name not in keep) for position in range(len(layers))
    )


def _weights(network: Network, layer: Convolution) -> KernelTensor:
    tensor = network.tensors[layer.weight]
    kind = network.values[layer.inputs[0]].kind
    if kind == "float":
        return _row_major(tensor)
    if kind == "bits" and tensor.encoding.kind == "sign" and layer.groups == 1:
        return _signs(tensor, is_flat(network, layer))
    form = form_of(tensor, layer.groups)
    return _taps(tensor) if form is DepthwiseInt8x4 else _integers(tensor, form, joined_taps(layer), layer.groups)


def joined_taps(layer: Convolution) -> int:
    """Taps whose activations lie beside one another (`rows.stretches`)."""
    return layer.window.kernel[1] if layer.window.dilation[1] == 1 and layer.groups == 1 else 1


def is_flat(network: Network, layer: Convolution) -> bool:
    """Whether a layer of packed signs sees each image as one vector: a matrix product behind Flatten."""
    window, size = layer.window, network.values[layer.inputs[0]].height_width
    return window.kernel == size and not any(window.pads) and window.dilation == (1, 1)


def form_of(tensor: StoredTensor, groups: int = 1) -> type:
    """How a kernel of integers takes a tensor. Packed weights are summed in the upper bits of int32, which bounds their number."""
    bits, products = tensor.encoding.bits, tensor.values[0].size if len(tensor.values) else 0
    if bits > 8:
        return Int16x2
    if groups == len(tensor.values) > 1 and tensor.values.shape[1] == 1:
        return DepthwiseInt8x4
    return {2: PackedInt2, 4: PackedInt4}.get(bits, Int8x4) if products < 1 << 16 else Int8x4


def offset_of(tensor: StoredTensor, groups: int = 1) -> int:
    """What is taken from unsigned codes that fill the signed integers of their form."""
    bits = tensor.encoding.bits
    form = form_of(tensor, groups)
    full = bits == (16 if form is Int16x2 else 8 // subbyte_slots(form))
    return 1 << (bits - 1) if tensor.encoding.kind == "unsigned" and full else 0


def masks_of(encoding: Encoding, width: int) -> npt.NDArray[np.int64]:
    """What a flip of each stored bit does to an integer of `width` bits: ±1 is negated, a sign bit has copies above it."""
    masks = np.int64(1) << np.arange(encoding.bits, dtype=np.int64)
    if encoding.kind == "sign":
        masks[0] = -2
    elif encoding.kind in ("signed", "float"):
        masks[-1] = -masks[-1]
    return masks if width == 64 else masks & ((1 << width) - 1)


def _plain(
    tensor: StoredTensor, values: npt.NDArray[np.generic], outer: npt.NDArray[np.int64], inner: npt.NDArray[np.int64]
) -> KernelTensor:
    """Integers that no tile reads; outer, inner: indices."""
    width = values.itemsize * 8
    order = StorageOrder(outer.astype(np.int64) * width, inner.astype(np.int64) * width, False)
    return KernelTensor(tensor, None, aligned_copy(values), order, masks_of(tensor.encoding, width))


def _row_major(tensor: StoredTensor) -> KernelTensor:
    """Integers -> int16 [O][taps * C]."""
    outputs, channels, taps = _shape(tensor)
    c, tap = np.ix_(np.arange(channels), np.arange(taps))
    outer, inner = np.arange(outputs) * (taps * channels), (tap * channels + c).reshape(-1)
    values = np.zeros((outputs, taps * channels), dtype=np.int16 if tensor.encoding.high < 1 << 15 else np.int32)
    values.reshape(-1)[outer[:, None] + inner] = tensor.values.reshape(outputs, -1)
    return _plain(tensor, values, outer, inner)


def _signs(tensor: StoredTensor, flat: bool) -> KernelTensor:
    """Signs -> `tile.PackedInt1`, every tap in words of its own; flat: all taps and channels are one row of bits."""
    outputs, channels, taps = _shape(tensor)
    if flat:
        channels, taps = channels * taps, 1
    words, blocks = -(-channels // 64), -(-outputs // LANES)
    o, (c, tap) = np.arange(outputs), np.ix_(np.arange(channels), np.arange(taps))
    outer = (o // LANES * (taps * words) * LANES + o % LANES) * 64
    inner = ((tap * words + c // 64) * LANES * 64 + c % 64).reshape(-1)
    values = aligned_zeros((blocks, taps * words, LANES), np.uint64)
    scatter_codes(values, outer, inner, (tensor.values.reshape(outputs, -1) > 0).astype(np.uint8))
    return KernelTensor(tensor, PackedInt1, values, StorageOrder(outer, inner, flat), np.ones(1, dtype=np.int64))


def _integers(tensor: StoredTensor, form: type, joined: int, groups: int) -> KernelTensor:
    """Integers -> one of the other forms of `tile.LAYOUTS`. Stretches of `joined` taps (`rows.stretches`) begin with a new word."""
    outputs, channels, taps = _shape(tensor)
    item, parts = (16, 1) if form is Int16x2 else (8, subbyte_slots(form))
    width, in_word = item // parts, 32 // item
    words = -(-joined * channels // (in_word * parts))
    per_group = outputs // groups
    blocks = -(-per_group // LANES)
    o, (c, tap) = np.arange(outputs), np.ix_(np.arange(channels), np.arange(taps))
    group, o = o // per_group, o % per_group
    outer = ((group * blocks + o // LANES) * (taps // joined * words) * LANES + o % LANES) * 32
    k = tap % joined * channels + c
    word, part, within = k // (in_word * parts), k // in_word % parts, k % in_word
    inner = ((tap // joined * words + word) * LANES * 32 + within * item + part * width).reshape(-1)
    offset = offset_of(tensor, groups)
    values = aligned_zeros((groups * blocks, taps // joined * words, LANES, in_word), np.int16 if form is Int16x2 else np.int8)
    scatter_codes(values, outer, inner, (tensor.values.reshape(outputs, -1) - offset) & ((1 << width) - 1))
    values ^= inverted_bits(form)
    return KernelTensor(tensor, form, values, StorageOrder(outer, inner, False), masks_of(tensor.encoding, width), offset)


def _taps(tensor: StoredTensor) -> KernelTensor:
    """Integers, one input channel for each output channel -> `tile.DepthwiseInt8x4`."""
    outputs, _, height, width = tensor.values.shape
    words, blocks = width * -(-height // 4), -(-outputs // LANES)
    o, (ky, kx) = np.arange(outputs), np.divmod(np.arange(height * width), width)
    lane = o % 16 // 4 * 8 + o % LANES // 16 * 4 + o % 4
    outer, inner = (o // LANES * words * LANES + lane) * 32, (kx * -(-height // 4) + ky // 4) * LANES * 32 + ky % 4 * 8
    offset = offset_of(tensor, outputs)
    values = aligned_zeros((blocks, words, LANES, 4), np.int8)
    scatter_codes(values, outer, inner, (tensor.values.reshape(outputs, -1) - offset) & 255)
    return KernelTensor(tensor, DepthwiseInt8x4, values, StorageOrder(outer, inner, False), masks_of(tensor.encoding, 8), offset)


def _shape(tensor: StoredTensor) -> tuple[int, int, int]:
    """Output channels, input channels of a group, taps of a weight tensor (O, C, kh, kw)."""
    outputs, channels, height, width = tensor.values.shape
    return outputs, channels, height * width


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Room that starts at a multiple of 64 bytes, so that no vector load crosses a cache line; its last word is whole."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64 + 8, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that start at a multiple of 64 bytes."""
    made = aligned_empty(shape, dtype)
    made[...] = 0
    return made


def aligned_copy(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A copy that starts at a multiple of 64 bytes."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
