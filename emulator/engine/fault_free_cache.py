"""The clean pass, kept: what every layer is given when nothing fails, so that a faulty pass begins where the first flip is.

Up to there a pass with faults equals the clean one. Values between layers are kept as far as a budget of memory goes; which are
kept decides how much is computed again and changes no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.fusion import steps_of
from weakcell.emulator.faults.deployment import Deployment
from weakcell.emulator.ir.layers import Layer
from weakcell.emulator.plan.plan import Plan

Array = npt.NDArray[Any]

_BUDGET_BYTES = 256 << 20


@dataclass(frozen=True)
class Start:
    """Where a pass may begin: in front of `layer`, with these values (physical form, images along the first axis)."""

    layer: int
    values: Mapping[str, Array]


class FaultFreeCache:
    """Starting points of passes over some inputs, made when first asked for; threads share one. It is pickled without them.

    inputs: by name, in physical form (`weakcell.emulator.engine.executor.check_inputs`). budget: bytes that may be kept besides
    the inputs.
    """

    def __init__(self, plan: Plan, inputs: Mapping[str, Array], budget: int = _BUDGET_BYTES) -> None:
        self.plan, self.inputs, self.budget = plan, dict(inputs), budget
        self._lock = Lock()
        self._starts: tuple[Start, ...] | None = None

    def __getstate__(self) -> tuple[Plan, dict[str, Array], int]:
        return self.plan, self.inputs, self.budget

    def __setstate__(self, state: tuple[Plan, dict[str, Array], int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The steps of a pass, fused: what `Start.layer` counts."""
        return steps_of(self.plan, self.plan.network.outputs)

    def before(self, layer: int) -> Start:
        """The latest start that is not behind `layer`; `len(layers)` asks for the outputs of the clean network."""
        if layer == 0 or self.budget == 0:
            return Start(0, self.inputs)
        with self._lock:
            if self._starts is None:
                self._starts = self._make()
        return max((start for start in self._starts if start.layer <= layer), key=lambda start: start.layer)

    def _make(self) -> tuple[Start, ...]:
        from weakcell.emulator.engine.executor import fault_free_values

        cuts = {cut: names for cut in range(1, len(self.layers) + 1) if (names := self._live(cut)) and names[0] not in self.inputs}
        one = next(fault_free_values(self.plan, {name: x[:1] for name, x in self.inputs.items()}, _names(cuts)))
        images = len(next(iter(self.inputs.values())))
        kept, used = dict[int, tuple[str, ...]](), 0
        for cut, names in cuts.items():
            size = sum(one[name].nbytes for name in names) * images
            if used + size <= self.budget:
                kept[cut], used = names, used + size
        if not kept:
            return (Start(0, self.inputs),)
        chunks = list(fault_free_values(self.plan, self.inputs, _names(kept)))
        whole = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in _names(kept)}
        whole.update(self.inputs)
        return (Start(0, self.inputs), *(Start(cut, {name: whole[name] for name in names}) for cut, names in kept.items()))

    def _live(self, cut: int) -> tuple[str, ...]:
        """What layers from `cut` on need of what came before; inputs of the network last."""
        made = {*self.inputs, *(layer.output for layer in self.layers[:cut])}
        needed = [name for layer in self.layers[cut:] for name in layer.inputs if name in made]
        names = dict.fromkeys([*needed, *(name for name in self.plan.network.outputs if name in made)])
        return tuple(sorted(names, key=lambda name: name in self.inputs))


def _names(cuts: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    """Every value of these cuts, once."""
    return tuple(dict.fromkeys(name for names in cuts.values() for name in names))


class Flipped:
    """Tells in which layers of a deployment flips, or signs that dropped out, have come since it was last asked."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment, self._seen = deployment, _changes(deployment)

    def first_of(self, layers: Sequence[Layer], redrawn: bool = False) -> int:
        """The first layer with a flip in its parameters (`redrawn`: or with some that are read as it runs); else their number.

        0 if buffers or a layer's constants lie in a memory: those err in ways that a layer's parameters do not tell.
        """
        if self._deployment.seen:
            return 0
        seen, self._seen = self._seen, _changes(self._deployment)
        tensors = {name for name, count in self._seen.items() if count > seen.get(name, 0)}
        for number, layer in enumerate(layers):
            if not tensors.isdisjoint(layer.tensor_names()) or (redrawn and self._deployment.slots_of(layer)):
                return number
        return len(layers)


def _changes(deployment: Deployment) -> Counter[str]:
    """How much was wrong in each tensor up to now. A failing check bit alone can drop signs that are right."""
    return Counter(deployment.tally.flips) + Counter(deployment.tally.dropped)
