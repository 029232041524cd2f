"""Technologies: conditions with valid ranges, a law from conditions to error terms, a cost, and their sources."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weakcell.memmodels.curves import Panel
from weakcell.memmodels.error_model.levels import LevelTerm
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.memory import Accesses, Basis, ConditionValue, Cost
from weakcell.memmodels.numbers import NumberRangeError, parse_number

Conditions = Mapping[str, ConditionValue]
Term = ErrorTerm | LevelTerm


@dataclass(frozen=True)
class Condition:
    """One knob of a technology.

    Attributes:
        name, unit: As in a SPEC; values are written without the unit.
        help: What it means.
        default: Its value if not given. None: it must be given, or is optional as `help` says.
        low, high: Closed range that the law's source supports. Values outside are refused, not extrapolated.
        choices: The permitted words, if the knob is not a number.
        required: Whether it must be given.
        beyond: Wider range that `extrapolate=yes` permits.
    """

    name: str
    unit: str
    help: str
    default: ConditionValue | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = False
    beyond: tuple[float, float] | None = None

    def check(self, value: ConditionValue, technology: str, extrapolate: bool = False) -> ConditionValue:
        """Return the value as a number or a word.

        Raises:
            MemorySpecError: It is neither, or out of range.
        """
        asked = f"{technology}: {self.name}={value}"
        if self.choices:
            if str(value) not in self.choices:
                raise MemorySpecError(asked, f"{self.name} is one of {', '.join(self.choices)}", "Choose one of these")
            return str(value)
        try:
            number = parse_number(value) if isinstance(value, str) else float(value)
        except NumberRangeError as error:
            raise MemorySpecError(asked[:200], str(error), f"Choose {self.name} within {self.range}") from None
        except (ValueError, OverflowError):  # OverflowError: of an int
            raise MemorySpecError(asked, f"{self.name} takes a number{self._unit}", "Write it without a unit") from None
        if self._low <= number <= self._high:
            return number
        if extrapolate and self.beyond:
            low, high = self.beyond
            if not low <= number <= high:
                found = f"extrapolated, the law reaches from {low:g} to {high:g}{self._unit} and no further"
                raise MemorySpecError(asked, found, f"Choose {self.name} within it")
            return number
        exception = " unless extrapolate=yes says so" if self.beyond else ""
        found = f"the valid range is {self.range}"
        raise MemorySpecError(asked, found, f"Choose {self.name} within it; laws are not extrapolated{exception}")

    @property
    def _low(self) -> float:
        return -float("inf") if self.low is None else self.low

    @property
    def _high(self) -> float:
        return float("inf") if self.high is None else self.high

    @property
    def _unit(self) -> str:
        return f" in {self.unit}" if self.unit else ""

    @property
    def range(self) -> str:
        """The valid values in words."""
        if self.choices:
            return " | ".join(self.choices)
        return f"{self._low:.12g} … {self._high:.12g} {self.unit}".strip()


@dataclass(frozen=True)
class Technology:
    """A kind of memory: its conditions, the law from conditions to error terms, its cost, and its sources.

    `weakcell memories NAME` prints this record.

    Attributes:
        name: Name in a SPEC.
        title: The technology in one line.
        conditions: Its knobs.
        terms: Complete conditions -> error terms, in the order in which they act.
        cost: (conditions, bits of the region, accesses) -> cost.
        law: The law as a formula, for people.
        source: Publication, for people.
        basis: How the law is known.
        sweep: The condition that a sweep usually varies.
        constants: (name, value with unit, basis) of each constant, for people.
        notes: What else a user must know.
        published_curve: Returns the published points and the law's comparison with them; None if there are no points.
        measured_values: Values of the swept condition at which alone something is known; empty if a law covers its range.
        version: Raised with every change of the law or its constants that changes errors. Stored runs of another version are not
            used again.
    """

    name: str
    title: str
    conditions: tuple[Condition, ...]
    terms: Callable[[Conditions], tuple[Term, ...]]
    cost: Callable[[Conditions, int, Accesses], Cost]
    law: str
    source: str
    basis: Basis
    sweep: str | None = None
    constants: tuple[tuple[str, str, Basis], ...] = ()
    notes: str = ""
    published_curve: Callable[[], tuple[Panel, ...]] | None = None
    measured_values: tuple[float, ...] = ()
    version: int = 1

    def resolve(self, given: Mapping[str, ConditionValue]) -> dict[str, ConditionValue]:
        """Return all conditions: the given ones, checked, and the defaults of the others.

        Raises:
            MemorySpecError: Unknown condition, bad value, or a required condition is missing.
        """
        known = {condition.name: condition for condition in self.conditions}
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(str(key).lower(), known, n=1)
                meant = ",".join(f"{near[0] if name == key else name}={value}" for name, value in given.items()) if near else ""
                hint = f"Did you mean {self.name}:{meant}? " if near else ""
                raise MemorySpecError(
                    f"{self.name}: {key}={given[key]}",
                    f"{self.name} has no condition {key!r}",
                    f"{hint}It has: {', '.join(known) or 'none'}",
                )
        resolved = {c.name: c.default for c in self.conditions if c.default is not None}
        extrapolate = str(given.get("extrapolate")) == "yes"
        resolved.update({key: known[key].check(value, self.name, extrapolate) for key, value in given.items()})
        missing = [c.name for c in self.conditions if c.required and c.name not in resolved]
        if missing:
            raise MemorySpecError(
                f"{self.name} without {', '.join(missing)}", "it has no default", f"Give it, as in {self.name}:{missing[0]}=…"
            )
        return resolved

    def lifetimes(self, conditions: Conditions) -> tuple[Lifetime, ...]:
        """Return the lifetimes of the terms at these conditions, each once, in order."""
        return tuple(dict.fromkeys(term.lifetime for term in self.terms(conditions)))


def no_cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return the cost of a technology that publishes none: all None."""
    return Cost()
