"""A network deployed on memories: every placed tensor written to its regions, and what each read of them brings back.

A *trial* is one deployment: die, draw, one pass over the data. Reads are named, not counted: the read index is 0 for `load`, the
number of the batch, the number of the image in the data set, or image x pixels + pixel, so chunks and threads change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import numpy as np

from weakcell.emulator.faults.placement import Placement, Slot
from weakcell.emulator.faults.read_policy import DEFAULT_POLICY
from weakcell.emulator.faults.read_policy import ReadPolicy as ReadPolicy  # who deploys names its policy
from weakcell.emulator.ir.faultable import collect_buffers, collect_constants, storable_names
from weakcell.emulator.ir.layers import Buffer, FloatOperator, Layer, Network
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.catalogue import open_memory
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import Key, Memory, Region
from weakcell.memmodels.protection.check_bits import ProtectedReport
from weakcell.memmodels.protection.wrappers import drops_signs
from weakcell.memmodels.sampling.read_errors import draw_region
from weakcell.memmodels.sampling.sampler import Sampler

T = TypeVar("T")


class Sampling(StrEnum):
    """What is drawn at a read."""

    BITS = "bits"
    """The flips of every stored bit."""
    OUTPUTS = "outputs"
    """Faulty outputs where they have a law of their own (`outcomes.py`), else bits. Exact in distribution; makes no flips."""


@dataclass(frozen=True, eq=False)
class StoredSlot:
    """A slot that has been written: its region, the memory that holds it, and its sampler if that memory has one."""

    slot: Slot
    memory: Memory
    region: Region
    sampler: Sampler | None

    @property
    def steady(self) -> bool:
        """Whether every read of a trial brings the same bits back, as the sampler tells."""
        return self.sampler is not None and self.sampler.terms.size == 0


@dataclass(frozen=True, eq=False)
class BufferSlot:
    """A slot of a buffer: every image writes it anew."""

    slot: Slot
    buffer: Buffer
    memory: Memory
    layout: Layout


@dataclass(eq=False)
class Tally:
    """Counts of one trial by tensor or buffer: flips seen, bits read, and signs that dropped out of sums."""

    flips: dict[str, int] = field(default_factory=dict)
    bits_read: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, tensor: str, flips: int, bits: int) -> None:
        self.flips[tensor] = self.flips.get(tensor, 0) + flips
        self.read(tensor, bits)

    def read(self, tensor: str, bits: int) -> None:
        """Count bits that were read without anyone knowing which of them flipped."""
        self.bits_read[tensor] = self.bits_read.get(tensor, 0) + bits


@dataclass(frozen=True, eq=False)
class Fault:
    """The flips of one read of one region and the bits that were written there. read: its number; the image of a buffer."""

    read: int
    slot: Slot
    flips: Words
    written: Words


class Returned(NamedTuple):
    """One read of a region. flips: read bits XOR written bits. dropped: signs that a protection leaves out of the sum, or None."""

    flips: Words
    dropped: Words | None = None


@dataclass(eq=False)
class Deployment:
    """One trial's stored network. `faults` collects every read with flips if it is a list; that makes runs slower.

    slots: of parameters, by tensor. buffers: by the value that they hold.
    """

    plan: Plan
    trial: int
    policy: ReadPolicy
    slots: dict[str, tuple[StoredSlot, ...]]
    buffers: dict[str, tuple[BufferSlot, ...]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    faults: list[Fault] | None = None
    sampling: Sampling = Sampling.BITS
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    _recorded: set[Hashable] = field(default_factory=set, init=False, repr=False)

    def read(self, stored: StoredSlot, read: int, times: float = 1.0) -> Returned:
        """One read of a slot, which counts as `times` reads."""
        flips, dropped = np.empty_like(stored.region.written), None
        if stored.sampler is not None:
            count = draw_region(stored.sampler, self.trial, stored.region.key.write, read, flips)
        else:
            report = stored.memory.read(stored.region, Key(self.trial, stored.region.key.write, read), flips)
            count, dropped = report.flips, report.dropped if isinstance(report, ProtectedReport) else None
            np.bitwise_xor(flips, stored.region.written, out=flips)
            flips[-1:] &= stored.region.layout.last_mask
        self.note(stored.slot, read, flips, stored.region, count, times)
        if dropped is not None:
            self.tally.dropped[stored.slot.tensor] = self.tally.dropped.get(stored.slot.tensor, 0) + popcount(dropped)
        return Returned(flips, dropped)

    def note(self, slot: Slot, read: int, flips: Words, region: Region, count: int, times: float = 1.0) -> None:
        """Count a read of a region, which stands for `times` reads, and keep its flips if they are recorded."""
        self.tally.add(slot.tensor, round(count * times), round(region.layout.bits * times))
        if self.faults is not None and count:
            key = (slot.tensor, slot.planes, read)
            if key not in self._recorded:  # several layers may share a tensor; under `image` they read it alike
                self._recorded.add(key)
                self.faults.append(Fault(read, slot, flips, region.written))

    @property
    def steady_slots(self) -> tuple[StoredSlot, ...]:
        """Slots that need to be read only once in a trial; none while faults are recorded, where every read is."""
        return () if self.faults is not None else tuple(stored for stored in self.all_slots if stored.steady)

    def slots_of(self, layer: Layer) -> tuple[StoredSlot, ...]:
        """The stored slots of all parameters of a layer that must be read each time it runs."""

        def find() -> tuple[StoredSlot, ...]:
            names = storable_names(layer, self.plan.constants)
            own = (stored for name in names for stored in self.slots.get(name, ()))
            return tuple(stored for stored in own if self.faults is not None or not stored.steady)

        return self.once(("slots", type(layer), layer.output), find)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` works out, which stays the same for the whole trial."""
        if key not in self._known:
            self._known[key] = make()
        made: T = self._known[key]
        return made

    @property
    def all_slots(self) -> tuple[StoredSlot, ...]:
        return tuple(stored for slots in self.slots.values() for stored in slots)

    @property
    def seen(self) -> frozenset[str]:
        """Values that a step may not skip: those in buffers, and those made by a layer with constants of its own in a memory."""
        constants = self.plan.constants.items()
        made = (value for value, own in constants if any(c.tensor.name in self.slots for c in own))
        return frozenset((*self.buffers, *made))


def reads_per_image(network: Network, policy: ReadPolicy, images: int, batch: int) -> dict[str, float]:
    """How often a run over `images` images reads each tensor, divided by the number of images.

    This counts what the emulator does, which depends on the size of the data set. For what one inference needs, see
    `reads_per_inference`. load, batch: one read serves all images, and all layers that use a tensor. image, access: each layer
    reads for itself. A buffer is read once per image.
    """
    if policy not in (ReadPolicy.LOAD, ReadPolicy.BATCH):
        return reads_per_inference(network, policy)
    times = (1 if policy is ReadPolicy.LOAD else -(-images // batch)) / max(images, 1)
    buffers = {buffer.name for buffer in collect_buffers(network)}
    return {name: 1.0 if name in buffers else times for name in reads_per_inference(network, policy)}


def reads_per_inference(network: Network, policy: ReadPolicy, shared: float = 1.0) -> dict[str, float]:
    """How often one inference reads each tensor, whatever the size of the data set.

    Args:
        network: the network.
        policy: load, batch and image: once for each layer that uses the tensor; access: once for each output pixel.
        shared: the number of inferences that share one read of the weights (the batch size under `batch`).

    Returns:
        Reads by the name of the tensor; 1 for a buffer, which every inference writes and reads by itself.
    """
    constants = collect_constants(network)
    reads: dict[str, float] = {buffer.name: 1.0 for buffer in collect_buffers(network)}
    for layer in network.layers:
        height, width = network.values[layer.output].height_width
        per_layer = (float(height * width) if policy is ReadPolicy.ACCESS else 1.0) / shared
        for name in storable_names(layer, constants):
            reads[name] = reads.get(name, 0.0) + per_layer
    return reads


def check_accesses(network: Network, placement: Placement) -> None:
    """Raise UsageError if a placed weight is read by a float operator, whose single uses of a weight are not told apart."""
    placed = {slot.tensor for slot in placement.slots}
    for layer in network.layers:
        if not isinstance(layer, FloatOperator):
            continue
        for name in (operand.tensor for operand in layer.stored):
            if name in placed:
                found = f"{layer.name} ({layer.op_type} in float32) reads the weights {name} as a whole, not use by use"
                raise UsageError("Reading weights at each use (access)", found, "Read them once per image (--read-every image)")


def deploy(
    plan: Plan,
    placement: Placement,
    policy: ReadPolicy = DEFAULT_POLICY,
    trial: int = 0,
    seed: int = 0,
    die: int | None = None,
    memories: Sequence[Memory] | None = None,
    record: bool = False,
    sampling: Sampling = Sampling.BITS,
) -> Deployment:
    """Write a network to its memories: die `die` (the trial's own if None), draw `trial`.

    memories: one per array of the placement, instead of opening them from their SPECs (a board, a recording, a test's own).
    UsageError where faults are to be recorded that are no flips, or where `access` asks for single uses that no kernel tells apart.
    """
    if policy is ReadPolicy.ACCESS:
        check_accesses(plan.network, placement)
    drops = [str(spec) for spec in placement.arrays if drops_signs(spec.name)] if record else []
    if drops:
        asked, found = (
            f"Recording the faults of {drops[0]}",
            "a sign that drops out of a sum is no flip, which is all a record holds",
        )
        raise UsageError(asked, found, "Choose another policy")
    if memories is None:
        which = trial if die is None else die
        memories = [open_memory(spec, seed, which, array) for array, spec in enumerate(placement.arrays)]
    slots: dict[str, list[StoredSlot]] = {}
    buffers: dict[str, list[BufferSlot]] = {}
    for slot in placement.slots:
        item, memory = plan.storable[slot.tensor], memories[slot.array]
        layout = plan.layout(slot.tensor, slot.planes)
        if isinstance(item, Buffer):
            buffers.setdefault(item.value.name, []).append(BufferSlot(slot, item, memory, layout))
            continue
        region = memory.write(plan.stored(layout), layout, Key(trial))
        slots.setdefault(slot.tensor, []).append(StoredSlot(slot, memory, region, memory.sampler(region)))
    stored = {name: tuple(parts) for name, parts in slots.items()}
    held = {name: tuple(parts) for name, parts in buffers.items()}
    return Deployment(plan, trial, policy, stored, held, faults=[] if record else None, sampling=sampling)
