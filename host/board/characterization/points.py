"""Operating points of a characterization, how each ended, and the plan that lists them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any

from weakcell.host.board.characterization.supply import LowPhase
from weakcell.host.board.errors import BoardError, VoltageRefused
from weakcell.host.board.link.protocol import MAX_DWELL_US
from weakcell.memmodels.address import Words
from weakcell.memmodels.errors import UsageError


class Outcome(StrEnum):
    """How the measurement of an operating point ended. Only the first two have counts."""

    OK = "ok"
    """Every cell came back as it was written."""
    FLIPS = "flips"
    """Cells came back inverted."""
    NO_RESPONSE = "no response"
    """The board fell silent and did not come back."""
    RESET = "reset"
    """The board restarted in between."""
    LINK_ERROR = "link error"
    """The board went on, but bytes did not get through."""
    DEVICE_ERROR = "device error"
    """The board's own checks failed: its code changed, or two reads at nominal voltage differ."""
    NOT_REACHED = "voltage not reached"
    """The register confirmed the voltage, and the core did not fall to it."""
    UNSEEN = "no flips, voltage not seen"
    """Every cell came back as it was written, and nothing shows that the voltage fell as far as asked."""
    VOLTAGE = "voltage refused or not confirmed"
    """The supply did not do, or did not confirm, what was commanded."""

    @property
    def has_counts(self) -> bool:
        """Whether flips were counted."""
        return self in (Outcome.OK, Outcome.FLIPS)

    @property
    def is_final(self) -> bool:
        """Whether a resumed run keeps it; what a cable or a supply may have caused is measured again."""
        return self not in (Outcome.LINK_ERROR, Outcome.VOLTAGE)


@dataclass(frozen=True)
class Point:
    """One operating point with one pattern.

    Attributes:
        index: in the plan.
        vdd: voltage while low, in V.
        dwell_s: time at that voltage, in s.
        pattern: name of the pattern.
        repeats: how often to write, lower, restore and read back.
    """

    index: int
    vdd: float
    dwell_s: float
    pattern: str
    repeats: int

    def __str__(self) -> str:
        return f"{self.vdd:.3g} V, {1000 * self.dwell_s:g} ms, {self.pattern}"


@dataclass(frozen=True)
class Plan:
    """All operating points of a characterization.

    Attributes:
        experiment: what happens while the voltage is low.
        voltages: in V, descending; the first is nominal, measured as a control.
        dwells: in s.
        patterns: names; a pattern has the same bits at every voltage, so that cells can be compared.
        repeats: at each point.
        pages: of the arena.
        seed: of the random pattern.
    """

    experiment: str
    voltages: tuple[float, ...]
    dwells: tuple[float, ...]
    patterns: tuple[str, ...]
    repeats: int
    pages: int
    seed: int = 0

    @property
    def nominal(self) -> float:
        """Nominal voltage, in V."""
        return self.voltages[0]

    @property
    def points(self) -> tuple[Point, ...]:
        """All points in the order of measurement.

        The control at nominal voltage is measured once per pattern, with the shortest dwell.
        """
        values = [(self.nominal, min(self.dwells), pattern, 1) for pattern in self.patterns]
        values += [
            (vdd, dwell, pattern, self.repeats) for dwell in self.dwells for vdd in self.voltages[1:] for pattern in self.patterns
        ]
        return tuple(Point(number, *each) for number, each in enumerate(values))

    @property
    def shots(self) -> int:
        """Number of times the voltage is lowered or, for the control, set to nominal."""
        return sum(point.repeats for point in self.points)


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt of which nothing was counted."""

    outcome: Outcome
    message: str


@dataclass(frozen=True, eq=False)
class Record:
    """The measurement of a point.

    Attributes:
        point: which one.
        outcome: how it ended.
        shots: what the supply did, one per repeat; empty if nothing was counted.
        errors: (repeats, words) uint64, read XOR written; None if nothing was counted.
        failures: earlier attempts.
        seconds: duration of the whole point.
    """

    point: Point
    outcome: Outcome
    shots: tuple[LowPhase, ...] = ()
    errors: Words | None = None
    failures: tuple[FailedAttempt, ...] = ()
    seconds: float = 0.0

    def stop(self) -> BoardError | None:
        """Return the error that must end the run after this record, if any."""
        message = self.failures[-1].message if self.failures else ""
        if self.outcome is Outcome.VOLTAGE:
            return VoltageRefused(f"Measuring at {self.point}", message.rstrip("."), "Repair the supply, then `--resume`")
        if self.outcome is Outcome.NO_RESPONSE:
            do = "Unplug and plug the board, copy the image again if it ran from RAM, then `--resume`"
            return BoardError(f"Measuring at {self.point}", "the board fell silent and did not come back", do)
        return None


_MOST_POINTS = 100_000


def load_plan(values: Any) -> Plan:
    """Return a plan from the values in a run's JSON.

    Raises:
        ValueError, TypeError: They are no plan.
    """
    if not isinstance(values, dict):
        raise ValueError("its plan is no table")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    plan = Plan(**given)
    lists = plan.voltages, plan.dwells, plan.patterns
    if not all(isinstance(values, tuple) and values for values in lists) or prod(map(len, lists)) > _MOST_POINTS:
        raise ValueError("its plan has no points, or too many")
    if not all(isinstance(value, float | int) and 0 <= value < 1e6 for value in (*plan.voltages, *plan.dwells)):
        raise ValueError("its plan has voltages or times that are no numbers")
    if not all(isinstance(text, str) for text in (plan.experiment, *plan.patterns)):
        raise ValueError("its plan has an experiment or patterns without names")
    counts = plan.repeats, plan.pages, plan.seed
    if not all(isinstance(count, int) for count in counts) or not (0 < plan.repeats < 1 << 20 and 0 < plan.pages < 1 << 20):
        raise ValueError("its plan has numbers of repeats or pages that cannot be")
    return plan


def make_plan(
    experiment: str,
    *,
    voltages: tuple[float, ...],
    dwells: tuple[float, ...],
    patterns: tuple[str, ...],
    repeats: int,
    pages: int,
    nominal: float,
    seed: int = 0,
) -> Plan:
    """Make a plan; voltages are sorted, and nominal is added as a control.

    Raises:
        UsageError: a value is given twice, is missing or is out of range.
        VoltageRefused: a voltage is above nominal.
    """
    for dwell in dwells:
        if not 0 < dwell * 1e6 <= MAX_DWELL_US:
            found = f"it is not within 0 and {MAX_DWELL_US / 1000:g} ms"
            raise UsageError(f"A dwell of {1000 * dwell:g} ms", found, "Choose others")
    for name, values in (("voltage", voltages), ("dwell", dwells), ("pattern", patterns)):
        if not values or len(set(values)) != len(values):
            raise UsageError(f"Characterizing at {list(values)}", f"a {name} is given twice, or none", "Give each once")
    lower = tuple(sorted((vdd for vdd in voltages if vdd < nominal - 1e-9), reverse=True))
    above = [vdd for vdd in voltages if vdd > nominal + 1e-9]
    if above:
        raise VoltageRefused(f"A core voltage of {above[0]:g} V", f"nominal is {nominal:g} V", "Choose none above it")
    return Plan(experiment, (nominal, *lower), dwells, patterns, repeats, pages, seed)
