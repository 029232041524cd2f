"""What a characterization measures: operating points, how each of them ended, and the plan that lists them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from weakcell.host.board.characterization.supply import LowPhase
from weakcell.host.board.errors import BoardError, VoltageRefused
from weakcell.host.board.link.protocol import MAX_DWELL_US
from weakcell.memmodels.address import Words
from weakcell.memmodels.errors import UsageError


class Outcome(StrEnum):
    """How an operating point ended. Only the first two have counts."""

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
    """The board's own checks failed: its code changed, or two looks at nominal voltage disagree."""
    VOLTAGE = "voltage refused or not confirmed"
    """The supply did not do, or did not confirm, what was commanded."""

    @property
    def has_counts(self) -> bool:
        return self in (Outcome.OK, Outcome.FLIPS)

    @property
    def is_final(self) -> bool:
        """Whether a resumed run leaves it as it is; what cable or supply may have caused is measured again."""
        return self not in (Outcome.LINK_ERROR, Outcome.VOLTAGE)


@dataclass(frozen=True)
class Point:
    """One operating point with one pattern. vdd: V; dwell_s: s. repeats: write, lower, restore, read back, so often."""

    index: int
    vdd: float
    dwell_s: float
    pattern: str
    repeats: int

    def __str__(self) -> str:
        return f"{self.vdd:.3g} V, {1000 * self.dwell_s:g} ms, {self.pattern}"


@dataclass(frozen=True)
class Plan:
    """All operating points. voltages: V, descending, the nominal one first as a control. dwells: s. pages: of the arena.

    patterns: names; the same bits at every voltage, so that cells can be compared.
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
        return self.voltages[0]

    @property
    def points(self) -> tuple[Point, ...]:
        """In the order in which they are measured; the control at nominal voltage once per pattern, with the shortest dwell."""
        wanted = [(self.nominal, min(self.dwells), pattern, 1) for pattern in self.patterns]
        wanted += [
            (vdd, dwell, pattern, self.repeats) for dwell in self.dwells for vdd in self.voltages[1:] for pattern in self.patterns
        ]
        return tuple(Point(number, *each) for number, each in enumerate(wanted))

    @property
    def shots(self) -> int:
        return sum(point.repeats for point in self.points)


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt of which nothing was counted."""

    outcome: Outcome
    message: str


@dataclass(frozen=True, eq=False)
class Record:
    """What was measured at a point. shots: what the supply did, one per repeat. errors: (repeats, words) uint64, read XOR written.

    Both are empty where nothing could be counted. failures: attempts before that. seconds: of the whole point.
    """

    point: Point
    outcome: Outcome
    shots: tuple[LowPhase, ...] = ()
    errors: Words | None = None
    failures: tuple[FailedAttempt, ...] = ()
    seconds: float = 0.0

    def stop(self) -> BoardError | None:
        """The error that ends a run after this record, if one does."""
        said = self.failures[-1].message if self.failures else ""
        if self.outcome is Outcome.VOLTAGE:
            return VoltageRefused(f"Measuring at {self.point}", said.rstrip("."), "Repair the supply, then `--resume`")
        if self.outcome is Outcome.NO_RESPONSE:
            do = "Unplug and plug the board, copy the image again if it ran from RAM, then `--resume`"
            return BoardError(f"Measuring at {self.point}", "the board fell silent and did not come back", do)
        return None


def load_plan(given: dict[str, Any]) -> Plan:
    """A plan from the values of a run's JSON."""
    tuples: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Plan(**tuples)


def make_plan(
    experiment: str,
    voltages: tuple[float, ...],
    dwells: tuple[float, ...],
    patterns: tuple[str, ...],
    repeats: int,
    pages: int,
    nominal: float,
    seed: int = 0,
) -> Plan:
    """A plan from what was asked; UsageError for what makes none. Voltages are sorted, the nominal one is added as a control."""
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
