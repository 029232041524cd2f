"""Cached values of a fault-free run, so that a faulty run can begin at the first layer that errs.

Up to that layer, a run with faults equals the fault-free one. Values between layers are kept as far as a memory budget allows.
Which are kept decides how much is computed again; results never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import fault_free_values
from weakcell.emulator.engine.fusion import fused_steps
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.plan.plan import Plan

Array = npt.NDArray[Any]

_BUDGET_BYTES = 256 << 20


@dataclass(frozen=True)
class Start:
    """Where a run may begin: before step `layer`, with these values (physical form, images along the first axis)."""

    layer: int
    values: Mapping[str, Array]


class FaultFreeCache:
    """Thread-safe cache of starting points for runs over the same inputs; they are computed when first needed.

    Pickling drops the starting points.

    Args:
        plan: the compiled network.
        inputs: by name, in physical form (`executor.check_inputs`).
        budget: bytes that may be kept besides the inputs; 0 disables the cache.
    """

    def __init__(self, plan: Plan, inputs: Mapping[str, Array], budget: int = _BUDGET_BYTES) -> None:
        self.plan, self.inputs, self.budget = plan, dict(inputs), budget
        self._lock = Lock()  # guards `_starts`
        self._starts: tuple[Start, ...] | None = None

    def __getstate__(self) -> tuple[Plan, dict[str, Array], int]:
        return self.plan, self.inputs, self.budget

    def __setstate__(self, state: tuple[Plan, dict[str, Array], int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The fused steps of a run, which `Start.layer` counts."""
        return fused_steps(self.plan, self.plan.network.outputs)

    def latest_start(self, layer: int) -> Start:
        """Return the latest start at or before step `layer`; `len(layers)` asks for the fault-free outputs."""
        if layer == 0 or self.budget == 0:
            return Start(0, self.inputs)
        with self._lock:
            if self._starts is None:
                try:
                    self._starts = self._compute_starts()
                except MemoryError:  # each run computes everything then
                    self._starts = (Start(0, self.inputs),)
        return max((start for start in self._starts if start.layer <= layer), key=lambda start: start.layer)

    def _compute_starts(self) -> tuple[Start, ...]:
        needed = {position: self._values_before(position) for position in range(1, len(self.layers) + 1)}
        needed = {position: names for position, names in needed.items() if names and names[0] not in self.inputs}
        one_image = {name: x[:1] for name, x in self.inputs.items()}
        sample = next(fault_free_values(self.plan, one_image, _all_names(needed)))
        images = len(next(iter(self.inputs.values())))
        chosen, used = dict[int, tuple[str, ...]](), 0
        for position, names in needed.items():
            size = sum(sample[name].nbytes for name in names) * images
            if used + size <= self.budget:
                chosen[position], used = names, used + size
        if not chosen:
            return (Start(0, self.inputs),)
        chunks = list(fault_free_values(self.plan, self.inputs, _all_names(chosen)))
        values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in _all_names(chosen)}
        values.update(self.inputs)
        starts = (Start(position, {name: values[name] for name in names}) for position, names in chosen.items())
        return (Start(0, self.inputs), *starts)

    def _values_before(self, position: int) -> tuple[str, ...]:
        """Return the values that the steps from `position` on need from those before; inputs of the network come last."""
        known = {*self.inputs, *(layer.output for layer in self.layers[:position])}
        needed = [name for layer in self.layers[position:] for name in layer.inputs if name in known]
        names = dict.fromkeys([*needed, *(name for name in self.plan.network.outputs if name in known)])
        return tuple(sorted(names, key=lambda name: name in self.inputs))


def _all_names(values: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in values.values() for name in names))
