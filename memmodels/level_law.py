"""The law of a profile of resistive cells: how conductances move, as quantiles of measured cells, over time or over bakes.

The quantiles are those of `technologies/rram_relaxation.py`, at `SHARES`: linear between groups of like conductance, in ln(time)
between times, and in the temperature between bakes. Levels are evenly spaced and borders half-way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.definition import Condition, Conditions
from weakcell.memmodels.error_model.levels import Code, LevelTerm
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies.rram_relaxation import SHARES, interpolate_groups, misread_neighbours
from weakcell.memmodels.technologies.support import check_neighbours

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LevelLaw:
    """Misread levels over time or over the temperature of a bake.

    Attributes:
        condition: `time` in s, or `bake` in °C.
        values: Measured times or temperatures, ascending.
        starts: Mean conductance of each group of cells before, in % of the full scale, ascending.
        changes: Quantiles of the change at `SHARES`, in % of the full scale: by value and group.
        unmeasured: Always None: levels have no rate of their own.
    """

    condition: Literal["time", "bake"]
    values: tuple[float, ...]
    starts: tuple[float, ...]
    changes: tuple[tuple[tuple[float, ...], ...], ...]
    unmeasured: None = None

    def __post_init__(self) -> None:
        shape = {(len(groups), len(quantiles)) for groups in self.changes for quantiles in groups}
        if not self.starts or shape != {(len(self.starts), len(SHARES))} or len(self.changes) != len(self.values):
            raise ValueError(f"changes are not {len(self.values)} x {len(self.starts)} x {len(SHARES)} numbers")
        numbers = np.array(self.changes)
        if not (np.isfinite(numbers).all() and (np.diff(numbers, axis=2) >= 0.0).all()):
            raise ValueError("quantiles are not finite, or do not ascend")
        for name in ("values", "starts"):
            found = getattr(self, name)
            if any(b <= a for a, b in pairwise(found)) or not all(map(math.isfinite, found)):
                raise ValueError(f"{name} do not ascend")
        if self.condition == "time" and self.values[0] <= 0.0:
            raise ValueError("a time is not positive")

    @property
    def formula(self) -> str:
        """The law in words."""
        return "P(level read as a neighbour) = P(change > half the distance of levels), from quantiles of measured cells"

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The knobs."""
        unit, meaning = ("s", "time since programming") if self.condition == "time" else ("°C", "temperature of one bake")
        low, high = self.values[0], self.values[-1]
        return (
            Condition(self.condition, unit, meaning, low, low=low, high=high),
            Condition("bits_per_cell", "", "bits in a cell", default="1", choices=("1", "2", "3")),
            Condition("low", "", "lowest level, as a share of the full scale", default=0.0, low=0.0, high=1.0),
            Condition("high", "", "highest level, as a share of the full scale", default=1.0, low=0.0, high=1.0),
            Condition("code", "", "which bits a level stands for", default="gray", choices=("gray", "binary")),
        )

    @cached_property
    def _groups(self) -> tuple[Floats, Floats]:
        """Starts (groups,) and quantiles (values, groups, shares)."""
        return np.array(self.starts), np.array(self.changes)

    def change(self, start: float, value: float) -> Floats:
        """Return the quantiles of the change of cells that start at `start` % of the full scale, at a time or temperature."""
        starts, changes = self._groups
        x = np.log(self.values) if self.condition == "time" else np.array(self.values)
        at = math.log(value) if self.condition == "time" else value
        place = min(max(int(np.searchsorted(x, at)), 1), len(self.values) - 1) if len(self.values) > 1 else 0
        last = interpolate_groups((starts, changes[place]), start)
        if place == 0:
            return last
        part = (at - x[place - 1]) / (x[place] - x[place - 1])
        mixed: Floats = (1.0 - part) * interpolate_groups((starts, changes[place - 1]), start) + part * last
        return mixed

    def terms(self, conditions: Conditions, profile: str) -> tuple[LevelTerm, ...]:
        """Return the misread levels.

        Args:
            conditions: Time or temperature, bits per cell, window and code.
            profile: Name of the profile, for a message.

        Raises:
            MemorySpecError: The window is empty, or its levels overlap beyond their neighbours.
        """
        low, high, value = (float(conditions[name]) for name in ("low", "high", self.condition))
        if high <= low:
            asked = f"Profile {profile}: low={low:g} with high={high:g}"
            raise MemorySpecError(asked, "the window is empty", "Choose high above low")
        top = (1 << int(conditions["bits_per_cell"])) - 1
        starts = [100.0 * (low + (high - low) * level / top) for level in range(top + 1)]
        up, down, beyond = misread_neighbours([self.change(start, value) for start in starts], starts[1] - starts[0])
        made_by = ", ".join(f"{name}={conditions[name]}" for name in (self.condition, "bits_per_cell", "low", "high"))
        check_neighbours(f"Profile {profile}", beyond, made_by)
        code: Code = "binary" if conditions["code"] == "binary" else "gray"
        return (LevelTerm("levels", up, down, code),)
