"""Reads that compiled kernels make by themselves: what is sampled, and where the flips go in the values that kernels use.

A memory with a sampler describes its errors as plain arrays. So a kernel can sample the flips of a block of weights while the block
is in cache (`kernels/fault_reads.py`), without a call of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, StoredSlot
from weakcell.emulator.kernels.arguments import FLIP_TARGET, FaultSource
from weakcell.emulator.kernels.entry_points import read_regions
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.plan.workspace import aligned_empty
from weakcell.memmodels.sampling.sampler import make_source_table

Array = npt.NDArray[Any]


class LayerReads(NamedTuple):
    """The reads of one layer for a chunk of images.

    Attributes:
        parameters: the current parameters, without the errors of these reads.
        deployment: the stored network.
        stored: the slots that are read.
        first: number in the data set of the first image of the chunk.
    """

    parameters: ParameterState
    deployment: Deployment
    stored: tuple[StoredSlot, ...]
    first: int

    @property
    def per_pixel(self) -> bool:
        """Whether parameters are read for every output pixel, not once per image."""
        return self.deployment.policy is ReadPolicy.ACCESS

    def reads_of(self, out: Array) -> int:
        """Return how many reads make an output (n, H, W, …)."""
        return len(out) * (out.shape[1] * out.shape[2] if self.per_pixel else 1)


def has_kernel_sampler(deployment: Deployment, stored: Iterable[StoredSlot]) -> bool:
    """Return whether a kernel can read all of these slots: they have samplers, and no faults are recorded."""
    return deployment.faults is None and all(part.sampler is not None for part in stored)


@dataclass(frozen=True, eq=False)
class FlipTargets:
    """Where the flips of some slots go.

    Attributes:
        table: FLIP_TARGET (slots,). It holds addresses, so it is valid in this process only.
        values: kernel-order values of the slots' tensors, into which the kernel puts the flips.
        alive: the arrays that the table points to.
    """

    table: npt.NDArray[np.void]
    values: dict[str, Array]
    alive: list[Array] = field(repr=False)


def new_flip_targets(plan: Plan, stored: tuple[StoredSlot, ...], fault_free: Mapping[str, Array]) -> FlipTargets:
    """Return flip targets for slots, with values in new buffers.

    Args:
        plan: the compiled network.
        stored: the slots.
        fault_free: values of their tensors without the flips of these slots, in kernel order.
    """
    alive, rows, values, shared = list[Array](), [], dict[str, Array](), dict[str, tuple[int, ...]]()

    def address(array: Array) -> int:
        alive.append(array)
        return int(array.__array_interface__["data"][0])

    for part in stored:
        name, kernel = part.slot.tensor, plan.tensors[part.slot.tensor]
        order, is_first = kernel.order, name not in values
        channels, elements = order.outer.size, order.inner.size
        if is_first:
            values[name] = aligned_empty(fault_free[name].shape, fault_free[name].dtype)
            stale = np.ones(-(-channels // LANES) + 8, dtype=np.uint8)
            shared[name] = address(fault_free[name]), address(values[name]), values[name].nbytes, address(stale)
        masks = kernel.flip_masks[list(part.slot.planes)]
        words = values[name].shape[1] if kernel.flat else 0
        shape = kernel.flat, words, channels, address(order.outer), elements, address(order.inner)
        rows.append((part.region.key.write, *shared[name], is_first, *shape, masks.size, address(masks)))
    return FlipTargets(np.array(rows, dtype=np.int64).view(FLIP_TARGET)[:, 0], values, alive)


@dataclass(frozen=True, eq=False)
class KernelReads:
    """Slots as a kernel reads them, row by row: what is sampled, and where the flips go.

    Attributes:
        stored: the slots.
        sources: what is sampled for each slot (`sampler.SOURCE`).
        targets: where the flips go.
        counts: int64 (slots,). The kernel writes here how many bits flipped.
    """

    stored: tuple[StoredSlot, ...]
    sources: npt.NDArray[np.void]
    targets: FlipTargets
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, stored: tuple[StoredSlot, ...], targets: FlipTargets) -> KernelReads:
        """Return the reads of slots that all have samplers."""
        sources = make_source_table([part.sampler for part in stored if part.sampler is not None])
        return cls(stored, sources, targets, np.zeros(len(stored), dtype=np.int64))

    def fault_source(self, reads: LayerReads) -> FaultSource:
        """Return the argument record of a kernel that reads these slots for each image, or for each output pixel."""
        return FaultSource(self.sources, self.targets.table, reads.deployment.trial, reads.first, reads.per_pixel, self.counts)

    def add_to_tally(self, deployment: Deployment, reads: int = 1) -> None:
        """Add `counts` to the deployment's tally, as the flips of so many reads."""
        for part, count in zip(self.stored, self.counts.tolist(), strict=True):
            deployment.tally.add(part.slot.tensor, count, part.region.layout.bits * reads)


@contextmanager
def open_reader(
    plan: Plan, deployment: Deployment, stored: tuple[StoredSlot, ...]
) -> Iterator[tuple[ParameterState, Callable[[int], None]]]:
    """Provide parameters for a run, and a function that reads all slots in one call.

    The parameters come from the plan's pool, with everything that an earlier run of the same slots derived from them. Whatever the
    function does not read must be restored by the caller.

    Args:
        plan: the compiled network.
        deployment: the stored network.
        stored: the slots to read, all with samplers; may be empty.

    Yields:
        The parameters, and a function of the number of the read.
    """

    def create() -> tuple[ParameterState, FlipTargets | None]:
        parameters = new_parameters(plan, deployment.slots)
        targets = new_flip_targets(plan, stored, parameters.values) if stored else None
        for name, values in targets.values.items() if targets else ():
            parameters.adopt_buffer(name, values)
        return parameters, targets

    slots = tuple((part.slot.tensor, part.slot.planes, part.region.key.write) for part in stored)
    key = "kernel reads", slots, frozenset(deployment.slots)
    parameters, targets = plan.workspaces.acquire(key, create)
    reads = KernelReads.of(stored, targets) if targets else None

    def read(number: int) -> None:
        if reads is None:
            return
        read_regions(reads.sources, reads.targets.table, deployment.trial, number, reads.counts)
        for name in reads.targets.values:
            parameters.invalidate(name)
        reads.add_to_tally(deployment)

    yield parameters, read
    # Not in a `finally`: after an error, faults that were half put in may still be there. Then the workspace is dropped.
    plan.workspaces.release(key, (parameters, targets))
