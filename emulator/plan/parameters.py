"""The parameters of a run: stored tensors in kernel order, into which faults are put and from which they are taken again.

A run computes with the plan's own arrays until a fault changes a tensor. Then the tensor gets a private copy, which is flipped in
place. Layers derive further values from the parameters (kernel constants, bound kernels). Those are cached, and dropped as soon as
a tensor that they depend on changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.faultable import storable_names, with_faulty_constants
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.values import StoredTensor, ValueSpec
from weakcell.emulator.kernels.entry_points import flip_rows, flip_values
from weakcell.emulator.kernels.weight_layouts import Int8x4
from weakcell.emulator.plan.layout import KernelTensor, contiguous_taps, pack_integers, unpack_integers
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.plan.workspace import aligned_empty
from weakcell.memmodels.address import Words, set_bits

T = TypeVar("T")
Array = npt.NDArray[np.generic]
Key = tuple[str, Hashable]


class DerivedCache:
    """Values that layers derive from the current parameters, by (layer, key).

    A lookup of a known key takes no lock. One lock guards the computation, so threads that compute with the same parameters share
    one cache. `invalidate` and `clear` must not run while another thread computes. Pickling yields an empty cache: values contain
    raw pointers.
    """

    def __init__(self) -> None:
        self.values: dict[Key, Any] = {}
        self._depends_on_values: dict[str, set[Key]] = {}
        self._depends_on_address: dict[str, set[Key]] = {}
        self._lock = RLock()  # reentrant: computing one value may look up another

    def __reduce__(self) -> tuple[type[DerivedCache], tuple[()]]:
        return DerivedCache, ()

    def add(
        self, key: Key, compute: Callable[[], Any], tensors: Collection[str], address_only: Callable[[], Collection[str]]
    ) -> Any:
        """Return the value of `key`; compute it unless another thread has done so.

        Args:
            key: layer name and what is derived.
            compute: returns the value.
            tensors: names of the tensors that it depends on.
            address_only: names those of which it depends on the address alone. Called after `compute`.
        """
        with self._lock:
            if key not in self.values:
                value, at_address = compute(), address_only()
                for name in tensors:
                    keys = self._depends_on_address if name in at_address else self._depends_on_values
                    keys.setdefault(name, set()).add(key)
                self.values[key] = value
            return self.values[key]

    def invalidate(self, name: str, moved: bool = False) -> None:
        """Drop what depends on the values of a tensor; moved: also what depends on its address."""
        for keys in (self._depends_on_values, self._depends_on_address) if moved else (self._depends_on_values,):
            for key in keys.pop(name, ()):
                self.values.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        self.values.clear()


def _always() -> bool:
    return True


@dataclass(eq=False)
class ParameterState:
    """The tensors of one run in kernel order, as they are now; `flip` puts faults in and takes them out.

    Shared: `plan`, and the plan's arrays in `values` as long as the run has not changed them.
    Private to the run: the dictionaries `values` and `dropped`, the buffers, and the cache. Copies that `with_faulty_constants` and
    `with_ranges` return are views: they share these with the original, so that a flip is seen by all.
    Threads: several may compute with one state. Only one may change it, and only while no other computes.

    Attributes:
        plan: the compiled network.
        values: current values of each tensor, in kernel order.
        specs: the network's values, with the zero points and scales that a layer reads.
        tensors: the network's tensors, with the zero points and scales that a layer reads.
        stored_constants: names of the layer constants (scales, zero points) that live in a memory.
        ranges: (lowest, highest) of float values that are quantized dynamically over a whole batch, by name. All others are
            quantized image by image.
        dropped: packed signs that count as 0 at present, by tensor: words in storage order.
    """

    plan: Plan
    values: dict[str, Array]
    specs: Mapping[str, ValueSpec]
    tensors: Mapping[str, StoredTensor]
    stored_constants: frozenset[str] = frozenset()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    dropped: dict[str, Words] = field(default_factory=dict)
    _private_buffers: dict[str, Array] = field(default_factory=dict, repr=False)
    _cache: DerivedCache = field(default_factory=DerivedCache, repr=False)

    # ── current values ──────────────────────────────────────────────────────────────────────────────

    def writable_copy(self, name: str) -> Array:
        """Return the values of a tensor in a buffer that this run may change."""
        previous, buffer = self.swap_in_private(name)
        if buffer is not previous:
            buffer[...] = previous
        return buffer

    def swap_in_private(self, name: str) -> tuple[Array, Array]:
        """Make the private, possibly uninitialised buffer of a tensor its current values.

        Returns:
            (previous values, buffer); both are the same array if the buffer was current already.
        """
        previous = self.values[name]
        if name not in self._private_buffers:
            self._private_buffers[name] = aligned_empty(previous.shape, previous.dtype)
        self._replace_values(name, self._private_buffers[name])
        return previous, self.values[name]

    def adopt_buffer(self, name: str, buffer: Array) -> None:
        """Make `buffer` the private buffer and the current values of a tensor, without copying."""
        self._private_buffers[name] = buffer
        self._replace_values(name, buffer)

    def restore(self, names: Collection[str]) -> None:
        """Take all faults of these tensors out again, and let all dropped signs count again."""
        for name in names:
            self._replace_values(name, self.plan.tensors[name].values)
        if self.dropped:
            self.dropped.clear()
            self._cache.clear()

    def invalidate(self, name: str) -> None:
        """Drop what was derived from the values of a tensor, because somebody has changed them in place."""
        self._cache.invalidate(name)

    def _replace_values(self, name: str, values: Array) -> None:
        """Make an array the current values; the one place where a tensor moves. Its values count as changed."""
        moved = self.values[name] is not values
        self.values[name] = values
        self._cache.invalidate(name, moved)

    def cached(self, layer: Layer, key: Hashable, compute: Callable[[], T], uses_weight_values: Callable[[], bool] = _always) -> T:
        """Return what `compute` derives for a layer; it is kept until a tensor changes that the layer reads.

        Args:
            layer: the layer.
            key: what is derived. It must name everything that the value depends on besides the layer's tensors.
            compute: returns the value.
            uses_weight_values: False if the value depends only on the address of the weights, so that a flip need not drop it.
        """
        entry = layer.name, key
        try:
            known: T = self._cache.values[entry]
        except KeyError:
            pass
        else:
            return known

        def address_only() -> Collection[str]:
            return () if uses_weight_values() else layer.tensor_names("weight")

        value: T = self._cache.add(entry, compute, storable_names(layer, self.plan.constants), address_only)
        return value

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────

    def flip(self, name: str, planes: tuple[int, ...], flips: Words) -> None:
        """Flip stored cells of a tensor; flipping the same cells again takes the fault out.

        Args:
            name: the tensor.
            planes: the bit planes that the region holds.
            flips: the cells to flip, as words in the storage order of the region.
        """
        kernel = self.plan.tensors[name]
        order = kernel.order
        if kernel.flat:
            flip_rows(*self.swap_in_private(name), order.inner.size, flips)
        else:
            values = self.writable_copy(name).reshape(-1).view(np.uint8)
            flip_values(values, order.outer, order.inner, kernel.flip_masks[list(planes)], flips)

    def drop_signs(self, name: str, cells: Words) -> Callable[[], None]:
        """Let some signs of a weight tensor count as 0.

        Args:
            name: the tensor.
            cells: the signs, as words in storage order.

        Returns:
            A function that undoes the call.
        """
        kernel = self.plan.tensors[name]
        self._cache.clear()
        if kernel.is_sign_packed:  # a bit cannot be 0: kernels get the weights as bytes (`ternary_weights`)
            self.dropped[name] = cells

            def forget_dropped() -> None:
                del self.dropped[name]
                self._cache.clear()

            return forget_dropped
        channel, element = np.divmod(set_bits(cells), kernel.order.inner.size)
        values = self.writable_copy(name)
        indices = (kernel.order.outer[channel] + kernel.order.inner[element]) // (8 * values.itemsize)
        flat = values.reshape(-1)
        previous = flat[indices]
        flat[indices] = 0

        def write_back() -> None:
            flat[indices] = previous
            self._cache.clear()

        return write_back

    # ── other forms of the values ───────────────────────────────────────────────────────────────────

    def ternary_weights(self, layer: Convolution) -> KernelTensor:
        """Return a layer's packed signs as bytes, with 0 for the dropped ones."""

        def pack_ternary() -> KernelTensor:
            kernel = self.plan.tensors[layer.weight]
            tensor = replace(kernel.tensor, codes=self.stored_integers(layer.weight).reshape(kernel.tensor.shape))
            return pack_integers(tensor, Int8x4, contiguous_taps(layer), 1)

        return self.cached(layer, "ternary", pack_ternary)

    def stored_integers(self, name: str) -> npt.NDArray[Any]:
        """Return the current integers of a tensor, flat, in storage order; dropped signs are 0."""
        integers = unpack_integers(self.plan.tensors[name], self.values[name])
        if name in self.dropped:
            integers[set_bits(self.dropped[name])] = 0
        return integers

    def with_faulty_constants(self, layer: Layer) -> tuple[Layer, ParameterState]:
        """Return the layer with its stored constants as they are now, and a view of the parameters for it."""
        constants = [c for c in self.plan.constants.get(layer.output, ()) if c.tensor.name in self.stored_constants]
        if not constants:
            return layer, self
        faulty = with_faulty_constants(layer, self.plan.network, {c: self.values[c.tensor.name] for c in constants})
        return faulty.layer, replace(self, specs=faulty.specs, tensors=faulty.tensors)

    def with_ranges(self, ranges: Mapping[str, tuple[float, float]]) -> ParameterState:
        """Return a view with other `ranges`."""
        return replace(self, ranges=ranges)


def new_parameters(plan: Plan, placed: Collection[str] = ()) -> ParameterState:
    """Return fault-free parameters for one run. placed: names of the tensors that live in a memory."""
    network, values = plan.network, {name: tensor.values for name, tensor in plan.tensors.items()}
    constants = {c.tensor.name for layer_constants in plan.constants.values() for c in layer_constants}
    return ParameterState(plan, values, network.values, network.tensors, frozenset(constants & {*placed}))


def fault_free_parameters(plan: Plan) -> ParameterState:
    """Return the parameters that all fault-free runs of a plan share. Nobody may change them."""
    return plan.cache.get("fault-free parameters", lambda: new_parameters(plan))
