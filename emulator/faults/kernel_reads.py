"""Regions that kernels read by themselves: what is drawn there, and where their cells lie in the values that kernels use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.faults.deployment import Deployment, StoredSlot
from weakcell.emulator.kernels.arguments import FaultSource
from weakcell.emulator.kernels.fault_reads import FLIP_TARGET, read_regions
from weakcell.emulator.kernels.weight_layouts import LANES
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.plan.workspace import aligned_empty
from weakcell.memmodels.sampling.sampler import make_source_table

Array = npt.NDArray[Any]


def drawable(deployment: Deployment, stored: Iterable[StoredSlot]) -> bool:
    """Whether a kernel can read all of these: they have samplers, and nobody asks which bits flip."""
    return deployment.faults is None and all(part.sampler is not None for part in stored)


@dataclass(frozen=True, eq=False)
class Homes:
    """Where the cells of some slots lie: a table of type FLIP_TARGET, one row each.

    values: of their tensors, with flips. kept: what the addresses mean.
    """

    table: npt.NDArray[np.void]
    values: dict[str, Array]
    kept: list[Array] = field(repr=False)


def homes_of(plan: Plan, stored: tuple[StoredSlot, ...], clean: Mapping[str, Array]) -> Homes:
    """Homes of slots in rooms of their own. clean: values of their tensors without the slots' flips, in kernel order."""
    kept, rows, values, leading = list[Array](), [], dict[str, Array](), dict[str, tuple[int, ...]]()

    def address(array: Array) -> int:
        kept.append(array)
        return int(array.__array_interface__["data"][0])

    for part in stored:
        name, kernel = part.slot.tensor, plan.tensors[part.slot.tensor]
        order, leads = kernel.order, name not in values
        channels, row = order.outer.size, order.inner.size
        if leads:
            values[name] = aligned_empty(clean[name].shape, clean[name].dtype)
            stale = np.ones(-(-channels // LANES) + 8, dtype=np.uint8)
            leading[name] = address(clean[name]), address(values[name]), values[name].nbytes, address(stale)
        masks = kernel.flip_masks[list(part.slot.planes)]
        shape = kernel.flat, values[name].shape[1] if kernel.flat else 0, channels, address(order.outer), row, address(order.inner)
        rows.append((part.region.key.write, *leading[name], leads, *shape, masks.size, address(masks)))
    return Homes(np.array(rows, dtype=np.int64).view(FLIP_TARGET)[:, 0], values, kept)


@dataclass(frozen=True, eq=False)
class Tables:
    """Drawable slots as a kernel takes them (`kernels.fault_reads`): row by row, what is drawn and where it goes.

    counts (R,): int64, where it says how many bits flipped.
    """

    stored: tuple[StoredSlot, ...]
    sources: npt.NDArray[np.void]
    homes: Homes
    counts: npt.NDArray[np.int64]

    def fault_source(self, deployment: Deployment, first_image: int, per_pixel: bool) -> FaultSource:
        """Return the argument record of a kernel that reads these slots for each image, or for each output pixel."""
        return FaultSource(self.sources, self.homes.table, deployment.trial, first_image, per_pixel, self.counts)

    def tally(self, deployment: Deployment, reads: int = 1) -> None:
        """Count what `counts` says of so many reads."""
        for part, count in zip(self.stored, self.counts.tolist(), strict=True):
            deployment.tally.add(part.slot.tensor, count, part.region.layout.bits * reads)


def tables_of(stored: tuple[StoredSlot, ...], homes: Homes) -> Tables:
    sources = make_source_table([part.sampler for part in stored if part.sampler is not None])
    return Tables(stored, sources, homes, np.zeros(len(stored), dtype=np.int64))


@contextmanager
def reader_of(
    plan: Plan, deployment: Deployment, stored: tuple[StoredSlot, ...]
) -> Iterator[tuple[ParameterState, Callable[[int], None]]]:
    """ParameterState for a run, and a function that reads drawable slots, all in one call, given the number of the read.

    The parameters are those of an earlier run of such slots, if there was one, with all that was worked out for them: whatever is
    not read by the function is to be restored.
    """

    def make() -> tuple[ParameterState, Homes | None]:
        parameters = new_parameters(plan, deployment.slots)
        homes = homes_of(plan, stored, parameters.values) if stored else None
        for name, values in homes.values.items() if homes else ():
            parameters.adopt_buffer(name, values)
        return parameters, homes

    drawn = tuple((part.slot.tensor, part.slot.planes, part.region.key.write) for part in stored)
    key = "run", drawn, frozenset(deployment.slots)
    parameters, homes = plan.workspaces.acquire(key, make)
    tables = tables_of(stored, homes) if homes else None

    def read(number: int) -> None:
        if tables is None:
            return
        read_regions(tables.sources, tables.homes.table, deployment.trial, number, tables.counts)
        for name in tables.homes.values:
            parameters.invalidate(name)
        tables.tally(deployment)

    yield parameters, read
    plan.workspaces.release(key, (parameters, homes))
