"""What an adapter makes of a table: counted rates, what it noticed, fitted profiles, and what could not be fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from weakcell.host.measurements.table import MeasurementTable
from weakcell.memmodels.fitting.models import clopper_pearson
from weakcell.memmodels.memory import ConditionValue
from weakcell.memmodels.profile import Constant, Profile


class Count(NamedTuple):
    """Wrong cells among all that held one value; an interval holds if cells err independently."""

    flips: int
    cells: int

    @property
    def rate(self) -> float:
        """Flips as a share of the cells."""
        return self.flips / self.cells

    def constant(self, name: str) -> Constant:
        """Return the rate with its 95 % interval."""
        low, high = clopper_pearson(self.flips, self.cells)
        return Constant(name, self.rate, "", low, high, method="Clopper-Pearson, cells independent")


@dataclass(frozen=True)
class CountedPoint:
    """The counts at one operating point.

    Attributes:
        conditions: The point.
        p01, p10: Cells that held 0, and 1; None if none did.
    """

    conditions: Mapping[str, ConditionValue]
    p01: Count | None
    p10: Count | None


class HeldOut(NamedTuple):
    """A point that was predicted by a fit without it, and the error in decades."""

    point: str
    error: float


@dataclass(frozen=True)
class FittedProfile:
    """A profile and how far it can be trusted.

    Attributes:
        profile: The profile.
        verdict: How well it fits, in words.
        held_out: Points that were left out in turn.
    """

    profile: Profile
    verdict: str
    held_out: tuple[HeldOut, ...] = ()

    @property
    def summary(self) -> str:
        """The errors of the held-out points in words; empty if there are none."""
        if not self.held_out:
            return ""
        missed = f"rms {self.held_out_rms:.3f}, largest {max(abs(one.error) for one in self.held_out):.3f} decades"
        return f"{len(self.held_out)} points held out in turn are missed by {missed}"

    @property
    def held_out_rms(self) -> float:
        """Root mean square of the errors of the held-out points; NaN without them."""
        return math.sqrt(sum(one.error**2 for one in self.held_out) / len(self.held_out)) if self.held_out else math.nan


@dataclass(frozen=True)
class Measurement:
    """An imported table.

    Attributes:
        title, source: For people.
        points: Counted rates.
        fits: Profiles, at least one.
        noticed: What is no failing cell, or is missing.
        not_fitted: What the table cannot say.
    """

    title: str
    source: str
    points: tuple[CountedPoint, ...]
    fits: tuple[FittedProfile, ...]
    noticed: tuple[str, ...] = ()
    not_fitted: tuple[str, ...] = ()

    @property
    def notes(self) -> str:
        """What was noticed and what cannot be said, for a profile."""
        return ". ".join((*self.noticed, *self.not_fitted))

    def with_metadata(self, **about: str) -> Measurement:
        """Return the measurement with title, source, notes and held-out errors in every profile; about: words for its `about`."""
        fits = []
        for one in self.fits:
            errors = [abs(held.error) for held in one.held_out]
            fit = dict(one.profile.fit)
            if errors:
                fit["held_out_points"] = float(len(errors))
                fit |= {"held_out_rms_decades": one.held_out_rms, "held_out_largest_decades": max(errors)}
            known = {**one.profile.about, **about}
            profile = replace(one.profile, title=self.title, source=self.source, notes=self.notes, fit=fit, about=known)
            fits.append(replace(one, profile=profile))
        return replace(self, fits=tuple(fits))


@dataclass(frozen=True)
class Adapter:
    """How one kind of table is read.

    Attributes:
        name: Of `--as`.
        reads: What it reads, in a line.
        columns: Columns that it expects, in words.
        recognizes: Whether a table is of its kind.
        read: Makes a measurement of a table and of facts that the file lacks (`--about`).
        facts: Names of these facts, with their meaning.
    """

    name: str
    reads: str
    columns: str
    recognizes: Callable[[MeasurementTable], bool]
    read: Callable[[MeasurementTable, Mapping[str, float]], Measurement]
    facts: Mapping[str, str] = field(default_factory=dict)
