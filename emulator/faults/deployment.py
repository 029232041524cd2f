"""A network deployed on memories: placed tensors written to regions, and the errors that each read returns.

A *trial* is one deployment: a die, a draw, one pass over the data. Reads have names, not a counter. The read index is 0 for `load`,
the number of the batch, the number of the image in the data set, or image x pixels + pixel. So chunks and threads change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import numpy as np

from weakcell.emulator.faults.placement import Placement, Slot
from weakcell.emulator.faults.read_policy import DEFAULT_POLICY
from weakcell.emulator.faults.read_policy import ReadPolicy as ReadPolicy  # exported again: callers of `deploy` name a policy
from weakcell.emulator.ir.faultable import collect_buffers, collect_constants, storable_names
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.ir.values import Buffer
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels.address import Layout, Words, popcount
from weakcell.memmodels.catalogue import open_memory
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.memory import Key, Memory, Region
from weakcell.memmodels.protection.check_bits import ProtectedReport
from weakcell.memmodels.protection.wrappers import drops_signs
from weakcell.memmodels.sampling.sampler import Sampler, draw_region

T = TypeVar("T")


class Sampling(StrEnum):
    """What is sampled at a read."""

    BITS = "bits"
    """The flips of every stored bit."""
    OUTPUTS = "outputs"
    """Faulty outputs where their distribution is known (`output_sampling.py`), else bits. Exact in distribution; makes no flips."""


@dataclass(frozen=True, eq=False)
class StoredSlot:
    """A slot that has been written: its region, the memory that holds it, and its sampler if that memory has one."""

    slot: Slot
    memory: Memory
    region: Region
    sampler: Sampler | None

    @property
    def same_at_every_read(self) -> bool:
        """Whether the sampler says that every read of a trial returns the same bits."""
        return self.sampler is not None and self.sampler.terms.size == 0


@dataclass(frozen=True, eq=False)
class BufferSlot:
    """A slot of an activation buffer. Every image writes it anew."""

    slot: Slot
    buffer: Buffer
    memory: Memory
    layout: Layout


@dataclass(eq=False)
class Tally:
    """Counts of one trial, by the name of the tensor or buffer.

    Attributes:
        flips: flipped bits.
        bits_read: bits read.
        dropped: signs that a protection left out of sums.
    """

    flips: dict[str, int] = field(default_factory=dict)
    bits_read: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, tensor: str, flips: int, bits: int) -> None:
        """Count the flips of a read of so many bits."""
        self.flips[tensor] = self.flips.get(tensor, 0) + flips
        self.read(tensor, bits)

    def read(self, tensor: str, bits: int) -> None:
        """Count bits whose flips nobody knows."""
        self.bits_read[tensor] = self.bits_read.get(tensor, 0) + bits


@dataclass(frozen=True, eq=False)
class Fault:
    """The flips of one read of one region.

    Attributes:
        read: the number of the read; for a buffer, the number of the image.
        slot: what was read.
        flips: read bits XOR written bits, as words in storage order.
        written: the written bits.
    """

    read: int
    slot: Slot
    flips: Words
    written: Words


class ReadResult(NamedTuple):
    """One read of a region. flips: read bits XOR written bits. dropped: signs that a protection leaves out of the sum, or None."""

    flips: Words
    dropped: Words | None = None


@dataclass(eq=False)
class Deployment:
    """One trial's stored network. One run at a time uses it.

    Attributes:
        plan: the compiled network.
        trial: the number of the trial.
        policy: when weights are read again.
        slots: written slots of each parameter, by tensor.
        buffers: buffer slots, by the name of the value that they hold.
        tally: counts of this trial.
        faults: None, or a list that collects every read with flips; that makes runs slower.
        sampling: what is sampled at a read.
    """

    plan: Plan
    trial: int
    policy: ReadPolicy
    slots: dict[str, tuple[StoredSlot, ...]]
    buffers: dict[str, tuple[BufferSlot, ...]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    faults: list[Fault] | None = None
    sampling: Sampling = Sampling.BITS
    _cache: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    _recorded: set[Hashable] = field(default_factory=set, init=False, repr=False)

    def read(self, stored: StoredSlot, read: int, times: float = 1.0) -> ReadResult:
        """Read a slot and count the read.

        Args:
            stored: the slot.
            read: the number of the read.
            times: how many reads it stands for.
        """
        flips, dropped = np.empty_like(stored.region.written), None
        if stored.sampler is not None:
            count = draw_region(stored.sampler, self.trial, stored.region.key.write, read, flips)
        else:
            report = stored.memory.read(stored.region, Key(self.trial, stored.region.key.write, read), flips)
            count, dropped = report.flips, report.dropped if isinstance(report, ProtectedReport) else None
            np.bitwise_xor(flips, stored.region.written, out=flips)
            flips[-1:] &= stored.region.layout.last_mask
        self.record_read(Fault(read, stored.slot, flips, stored.region.written), stored.region.layout, count, times)
        if dropped is not None:
            self.tally.dropped[stored.slot.tensor] = self.tally.dropped.get(stored.slot.tensor, 0) + popcount(dropped)
        return ReadResult(flips, dropped)

    def record_read(self, fault: Fault, layout: Layout, count: int, times: float = 1.0) -> None:
        """Count a read of a region, and keep its flips if faults are recorded.

        Args:
            fault: the read.
            layout: the layout of the region.
            count: the number of flips.
            times: how many reads it stands for.
        """
        self.tally.add(fault.slot.tensor, round(count * times), round(layout.bits * times))
        if self.faults is not None and count:
            key = (fault.slot.tensor, fault.slot.planes, fault.read)
            if key not in self._recorded:  # several layers may share a tensor; under `image` they read it alike
                self._recorded.add(key)
                self.faults.append(fault)

    @property
    def slots_same_at_every_read(self) -> tuple[StoredSlot, ...]:
        """Slots that need to be read only once in a trial; none while faults are recorded, because every read is recorded."""
        return () if self.faults is not None else tuple(stored for stored in self.all_slots if stored.same_at_every_read)

    def slots_of(self, layer: Layer) -> tuple[StoredSlot, ...]:
        """Return the stored slots of a layer's parameters that must be read each time it runs."""

        def find_slots() -> tuple[StoredSlot, ...]:
            names = storable_names(layer, self.plan.constants)
            slots = (stored for name in names for stored in self.slots.get(name, ()))
            return tuple(stored for stored in slots if self.faults is not None or not stored.same_at_every_read)

        return self.cached(("slots", type(layer), layer.output), find_slots)

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what `compute` returned for this key first; it stays the same for the whole trial."""
        if key not in self._cache:
            self._cache[key] = compute()
        value: T = self._cache[key]
        return value

    @property
    def all_slots(self) -> tuple[StoredSlot, ...]:
        """All written slots."""
        return tuple(stored for slots in self.slots.values() for stored in slots)

    @property
    def unfusable_values(self) -> frozenset[str]:
        """Values that a fused step may not skip: those in buffers, and outputs of layers whose constants live in a memory."""
        constants = self.plan.constants.items()
        outputs = (value for value, parts in constants if any(c.tensor.name in self.slots for c in parts))
        return frozenset((*self.buffers, *outputs))


def reads_per_image(network: Network, policy: ReadPolicy, images: int, batch: int) -> dict[str, float]:
    """Return how often a run reads each tensor, divided by the number of images.

    This counts what the emulator does, which depends on the size of the data set. For what one inference needs, see
    `reads_per_inference`. load, batch: one read serves all images, and all layers that use a tensor. image, access: each layer
    reads for itself. A buffer is read once per image.

    Args:
        network: the network.
        policy: when weights are read again.
        images: images in the run.
        batch: images per batch under `ReadPolicy.BATCH`.
    """
    if policy not in (ReadPolicy.LOAD, ReadPolicy.BATCH):
        return reads_per_inference(network, policy)
    times = (1 if policy is ReadPolicy.LOAD else -(-images // batch)) / max(images, 1)
    buffers = {buffer.name for buffer in collect_buffers(network)}
    return {name: 1.0 if name in buffers else times for name in reads_per_inference(network, policy)}


def reads_per_inference(network: Network, policy: ReadPolicy, shared: float = 1.0) -> dict[str, float]:
    """Return how often one inference reads each tensor, whatever the size of the data set.

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
    """Raise UsageError if a placed weight is read by a float operator, which does not distinguish single uses of a weight."""
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
    *,
    trial: int = 0,
    seed: int = 0,
    die: int | None = None,
    memories: Sequence[Memory] | None = None,
    record: bool = False,
    sampling: Sampling = Sampling.BITS,
    reads: bool = True,
) -> Deployment:
    """Write a network to its memories.

    Args:
        plan: the compiled network.
        placement: which memory each stored bit lives in.
        policy: when weights are read again.
        trial: the number of the trial; it names the draw.
        seed: the seed of all simulated memories.
        die: the number of the die; None for one die per trial.
        memories: one per array of the placement, instead of opening them from their SPECs (a board, a recording, a test's own).
        record: keep every read with flips in `Deployment.faults`.
        sampling: what is sampled at a read.
        reads: False makes no samplers, which saves most of the time. The deployment then serves for costs only.

    Raises:
        UsageError: `record` for a memory whose protection drops signs, which are no flips; or `ReadPolicy.ACCESS` for weights of a
            float operator, whose single uses no kernel distinguishes.
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
        number = trial if die is None else die
        memories = [open_memory(spec, seed, number, array) for array, spec in enumerate(placement.arrays)]
    slots: dict[str, list[StoredSlot]] = {}
    buffers: dict[str, list[BufferSlot]] = {}
    for slot in placement.slots:
        item, memory = plan.storable[slot.tensor], memories[slot.array]
        layout = plan.layout(slot.tensor, slot.planes)
        if isinstance(item, Buffer):
            buffers.setdefault(item.value.name, []).append(BufferSlot(slot, item, memory, layout))
            continue
        region = memory.write(plan.stored(layout), layout, Key(trial))
        slots.setdefault(slot.tensor, []).append(StoredSlot(slot, memory, region, memory.sampler(region) if reads else None))
    return Deployment(
        plan,
        trial,
        policy,
        {name: tuple(parts) for name, parts in slots.items()},
        {name: tuple(parts) for name, parts in buffers.items()},
        faults=[] if record else None,
        sampling=sampling,
    )
