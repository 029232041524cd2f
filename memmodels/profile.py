"""Measured or fitted profiles: error terms at operating points, or a law between them, in a TOML file that loads as `file:PATH`.

    schema = 2                              schema 1 is read, too; it has no `unmeasured`. 3: a law with a `kind`
    name = "board-a"                        title, source, notes: for people; basis: measured, published, computed or assumed
    arrays = "board-a.npz"                  small arrays in a second file, if there are any
    [about]                                 words by name: licence, board, lot, url, sha256 of the raw data …
    [fit]                                   how well the law fits, if there is one: verdict, chi_square, dispersion …
    [[constants]]                           every constant: name, value, unit, [low, high] at `confidence`, basis, method
    [[points]]                              operating points, each with `conditions` and its `terms`, or
    [law]                                   a probit over one condition, or one with a kind: `retention`, `levels`

The law: P(a cell that can err does so at V) = Phi((mu - V) / s), lifetime die, nested. Cells that hold 0 and 1 err with `share01`
and `share10` times that. mu, s and V are in the condition's unit.

`unmeasured = "p01"` (or "p10") at a point or in the law: no cell held 0 (or 1) during the measurement, so that rate is unknown.
Nothing is assumed silently: the memory then needs the condition `p01_share` (`p10_share`), the unknown rate as a share of the known
one, and refuses without it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.atomic_files import write_atomically, write_text_atomically
from weakcell.memmodels.definition import Condition, Conditions, Technology, Term, no_cost
from weakcell.memmodels.error_model.structure import Lines
from weakcell.memmodels.error_model.terms import ErrorTerm
from weakcell.memmodels.errors import InputError, MemorySpecError, OutputError
from weakcell.memmodels.files import read_arrays, read_text, reason
from weakcell.memmodels.level_law import LevelLaw
from weakcell.memmodels.memory import Basis, ConditionValue
from weakcell.memmodels.printable import escape_surrogates
from weakcell.memmodels.record_tables import has_type, make_record, make_table, parse_term, tuples_of
from weakcell.memmodels.recording import is_condition, same_point
from weakcell.memmodels.retention_law import TimeLaw
from weakcell.memmodels.toml_text import format_key, format_value, parse_toml

SCHEMA, SCHEMA_OF_LAWS = 2, 3
_READABLE = (1, 2, 3)
Array = npt.NDArray[Any]
Rate = Literal["p01", "p10"]


@dataclass(frozen=True)
class Constant:
    """A number of a profile.

    Attributes:
        name, value, unit: The number.
        low, high: Its interval at `confidence`.
        basis: How it is known.
        method: How the interval was computed.
        confidence: Coverage of the interval.
    """

    name: str
    value: float
    unit: str
    low: float
    high: float
    basis: Basis = "measured"
    method: str = ""
    confidence: float = 0.95

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.basis == "assumed" and self.low == self.high:
            return f"{self.value:.6g}{unit}"
        return f"{self.value:.6g}{unit} [{self.low:.6g}, {self.high:.6g}]"


@dataclass(frozen=True)
class OperatingPoint:
    """The error terms at one operating point.

    Attributes:
        conditions: The point.
        terms: Its error terms.
        unmeasured: The unknown rate, if any; see the head of this module.
    """

    conditions: Mapping[str, ConditionValue]
    terms: tuple[Term, ...]
    unmeasured: Rate | None = None


@dataclass(frozen=True)
class ProbitLaw:
    """A law over one condition: p01, p10 = share01, share10 times Phi((mu - V) / s).

    Attributes:
        condition, unit: What V is.
        low, high: Valid range of V.
        mu, s: Constants.
        share01, share10: The rates in units of Phi.
        like: The error term, but for its rates.
        unmeasured: The unknown rate, if any; see the head of this module.
    """

    condition: str
    unit: str
    low: float
    high: float
    mu: float
    s: float
    share01: float
    share10: float
    like: ErrorTerm
    unmeasured: Rate | None = None

    def terms(self, value: float) -> tuple[ErrorTerm, ...]:
        """Return the error terms at V = `value`."""
        from weakcell.memmodels.technologies.sram import probit

        p = probit(value, self.mu, self.s)
        kept = {each.name: getattr(self.like, each.name) for each in fields(ErrorTerm) if each.name not in ("p01", "p10")}
        return (ErrorTerm(p01=self.share01 * p, p10=self.share10 * p, **kept),)


@dataclass(frozen=True)
class Profile:
    """What is known about a memory: terms at operating points, or a law.

    Attributes:
        name: Of the profile.
        points: Operating points; empty if there is a law.
        law: A law; None if there are points.
        constants: Every constant with its interval and basis.
        title, source, notes: For people.
        basis: How the profile is known.
        arrays: Small arrays that are saved with it.
        about: What else is known about the measurement, in words by name: `licence`, `board`, `lot`, `url` …
        fit: How well the law fits: `verdict` in words, `chi_square`, `degrees_of_freedom`, `p_value`, `dispersion`, and others.
    """

    name: str
    points: tuple[OperatingPoint, ...] = ()
    law: ProbitLaw | TimeLaw | LevelLaw | None = None
    constants: tuple[Constant, ...] = ()
    title: str = ""
    source: str = ""
    notes: str = ""
    basis: Basis = "measured"
    arrays: Mapping[str, Array] = field(default_factory=dict, compare=False)
    fit: Mapping[str, float | str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    def terms(self, conditions: Conditions) -> tuple[Term, ...]:
        """Return the error terms at an operating point.

        Raises:
            MemorySpecError: The profile says nothing about it.
        """
        if isinstance(self.law, TimeLaw | LevelLaw):
            return _complete_terms(self.law.terms(conditions, self.name), self.law.unmeasured, conditions, self.name)
        if self.law is not None:
            value = float(conditions[self.law.condition])
            try:
                found = self.law.terms(value)
            except ValueError as error:
                where = f"Profile {self.name} at {self.law.condition}={value:g}"
                raise MemorySpecError(where, str(error), "Choose a point where its law gives probabilities") from error
            return _complete_terms(found, self.law.unmeasured, conditions, self.name)
        asked = {key: value for key, value in conditions.items() if key not in _SHARES.values()}
        for point in self.points:
            if same_point(point.conditions, asked):
                return _complete_terms(point.terms, point.unmeasured, conditions, self.name)
        known = "; ".join(_format_conditions(point.conditions) for point in self.points)
        raise MemorySpecError(
            f"Profile {self.name} at {_format_conditions(asked)}", f"it holds only {known}", "Choose one of these"
        )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The knobs: the law's, or those of the operating points."""
        if isinstance(self.law, TimeLaw | LevelLaw):
            return (*self.law.conditions, *self._assumptions)
        if self.law is not None:
            law = self.law
            knob = Condition(law.condition, law.unit, "operating point of the law", law.low, low=law.low, high=law.high)
            return (knob, *self._assumptions)
        knobs = (_make_condition(name, [point.conditions[name] for point in self.points]) for name in self.points[0].conditions)
        return (*knobs, *self._assumptions)

    @property
    def unmeasured(self) -> tuple[Rate, ...]:
        """The rates that were not measured, at one operating point or more."""
        parts = self.points if self.law is None else (self.law,)
        return tuple(dict.fromkeys(part.unmeasured for part in parts if part.unmeasured))

    @property
    def _assumptions(self) -> tuple[Condition, ...]:
        """A knob for each rate that was not measured, without a default."""
        known: Mapping[Rate, Rate] = {"p01": "p10", "p10": "p01"}
        return tuple(
            Condition(_SHARES[rate], "", f"{rate}, which was not measured, as a share of {known[rate]}", low=0.0, high=1.0)
            for rate in self.unmeasured
        )

    def technology(self, name: str | None = None) -> Technology:
        """Return the profile as a technology called `name`."""
        law = "terms at measured operating points, nothing between them"
        if isinstance(self.law, TimeLaw | LevelLaw):
            law = self.law.formula
        elif self.law is not None:
            law = f"p = Phi((mu - {self.law.condition}) / s), per cell and die, nested; p01 = share01 p, p10 = share10 p"
        movable = [condition.name for condition in self.conditions if not condition.choices]
        return Technology(
            name=name or self.name,
            title=self.title or self.name,
            conditions=self.conditions,
            terms=self.terms,
            cost=no_cost,
            law=law,
            source=self.source,
            basis=self.basis,
            sweep=movable[0] if movable else None,
            measured_values=self._measured_values(movable[0]) if movable else (),
            constants=tuple((constant.name, str(constant), constant.basis) for constant in self.constants),
            notes=self.notes,
        )

    def _measured_values(self, condition: str) -> tuple[float, ...]:
        """Return the values of a condition at which there are operating points; none for a law, and for an assumed share."""
        return tuple(sorted({float(point.conditions[condition]) for point in self.points if condition in point.conditions}))

    def save(self, path: str | Path) -> Path:
        """Write PATH (TOML) and, if there are arrays, an .npz of the same name.

        Raises:
            OutputError: A file cannot be written, or its name cannot be stored in the other.
        """
        target = Path(path)
        arrays_path = target.with_suffix(".npz")
        if self.arrays:
            if escape_surrogates(arrays_path.name) != arrays_path.name:
                found = "its name is not UTF-8, and the profile has to name the file of its arrays"
                raise OutputError(f"Writing {target}", found, "Choose another name")
            named: dict[str, Any] = {name: np.asarray(array) for name, array in self.arrays.items()}
            write_atomically(arrays_path, lambda file: np.savez_compressed(file, **named))
        write_text_atomically(target, "\n".join(_format_profile(self, arrays_path.name if self.arrays else None)))
        return target


def load(path: str | Path) -> Profile:
    """Read a profile.

    Raises:
        InputError: The file cannot be read, is damaged, or has another schema.
    """
    found = Path(path)
    try:
        table = parse_toml(read_text(found))
        if table.get("schema") not in _READABLE:
            asked, other = f"Profile {found}", f"its schema is {table.get('schema')!r}, this version reads {_READABLE}"
            raise InputError(asked, other, "Fit it again, or use the version that wrote it")
        return _parse_profile(table, found)
    except OSError as error:
        raise InputError(f"Profile {found}", f"it cannot be read ({error.strerror or error})", "Check the path") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        found_error = f"key {error.args[0]!r} is missing" if isinstance(error, KeyError) else reason(error)
        damage = f"it is no profile or is damaged ({found_error})"
        raise InputError(f"Profile {found}", damage, "Repair it, or fit it again") from error


def find_arrays(path: Path) -> Path | None:
    """Return the file of a profile's arrays; None if it has none, or is no profile."""
    try:
        name = parse_toml(read_text(path)).get("arrays")
        found = None if name is None else path.with_name(name)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return found if found is not None and os.path.isfile(found) else None


def technology_of(path: str) -> Technology:
    """Return the technology of a profile file."""
    return load(path).technology(f"file:{path}")


# --- rates that were not measured ----------------------------------------------------------------------------------------------

_SHARES: Mapping[Rate, str] = {"p01": "p01_share", "p10": "p10_share"}


def _complete_terms(terms: tuple[Term, ...], unmeasured: Rate | None, conditions: Conditions, name: str) -> tuple[Term, ...]:
    """Return the terms with the unmeasured rate as the user assumes it; MemorySpecError if nothing is assumed."""
    if unmeasured is None:
        return terms
    knob, value = _SHARES[unmeasured], "0" if unmeasured == "p01" else "1"
    if knob not in conditions:
        raise MemorySpecError(
            f"Profile {name} without {knob}",
            f"no cell ever held {value} when it was measured, so {unmeasured} is not known",
            f"Say what to assume: {knob}=0 (such cells never err) … {knob}=1 (they err as often as the others)",
        )
    share = float(conditions[knob])
    return tuple(_with_share(term, unmeasured, share, name) if isinstance(term, ErrorTerm) else term for term in terms)


def _with_share(term: ErrorTerm, unmeasured: Rate, share: float, name: str) -> ErrorTerm:
    """Return the term with the unmeasured rate as a share of the other; cells then prefer either value."""
    if share == 0.0:
        return term
    known = max(term.p01, term.p10)
    other = min(share * known, 1.0 - known) if term.fixed_preference else share * known
    p01, p10 = (other, known) if unmeasured == "p01" else (known, other)
    structure = term.structure
    if isinstance(structure, Lines):
        structure = replace(structure, in_line=min(2.0 * structure.in_line, 1.0))
    try:
        return replace(term, p01=p01, p10=p10, preference="cell", structure=structure)
    except ValueError as error:
        asked = f"Profile {name} with {_SHARES[unmeasured]}={share:g}"
        raise MemorySpecError(asked, str(error), f"Assume less, or {_SHARES[unmeasured]}=0") from error


# --- reading --------------------------------------------------------------------------------------------------------


def _parse_profile(table: dict[str, Any], path: Path) -> Profile:
    arrays: dict[str, Array] = {}
    if "arrays" in table:
        beside = path.with_name(table["arrays"])
        arrays = read_arrays(beside, f"Profile {path}, file {beside.name}", "Keep the files of a profile together, or fit it again")
    law = table.get("law")
    points = tuple(
        OperatingPoint(_check_conditions(one["conditions"]), tuple(map(parse_term, one["terms"])), one.get("unmeasured"))
        for one in table.get("points", [])
    )
    if (law is None) == (not points):
        raise ValueError("a profile has operating points or a law")
    if any(point.conditions.keys() != points[0].conditions.keys() for point in points):
        raise ValueError("all operating points have the same conditions")
    for part in (law or {}, *table.get("points", [])):
        if part.get("unmeasured") not in (None, *_SHARES):
            raise ValueError(f"unmeasured {part['unmeasured']!r}")
    plain = {key: table[key] for key in ("name", "title", "source", "notes", "basis") if key in table}
    fit = table.get("fit", {})
    if not isinstance(fit, dict) or not all(isinstance(value, str) or has_type(value, float) for value in fit.values()):
        raise ValueError("fit is no table of numbers and words")
    about = table.get("about", {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise ValueError("about is no table of words")
    return make_record(
        Profile,
        plain,
        points=points,
        law=None if law is None else _parse_law(law),
        constants=tuple(make_record(Constant, one) for one in table.get("constants", [])),
        arrays=arrays,
        fit=fit,
        about=about,
    )


def _parse_law(table: dict[str, Any]) -> ProbitLaw | TimeLaw | LevelLaw:
    """Return a law with finite constants."""
    if "kind" in table:
        given = {key: value for key, value in table.items() if key != "kind"}
        kinds: dict[str, type[TimeLaw] | type[LevelLaw]] = {"retention": TimeLaw, "levels": LevelLaw}
        if table["kind"] not in kinds:
            raise ValueError(f"there is no kind of law {table['kind']!r}")
        return make_record(kinds[table["kind"]], {key: tuples_of(value) for key, value in given.items()})
    like = parse_term(table["like"])
    if not isinstance(like, ErrorTerm):
        raise ValueError("a law has no term of levels")
    law = make_record(ProbitLaw, table, like=like)
    if not (law.s and all(map(math.isfinite, (law.low, law.high, law.mu, law.s)))):
        raise ValueError(f"the law reaches from {law.low} to {law.high} with mu = {law.mu} and s = {law.s}")
    if not (0.0 <= law.share01 <= 1.0 and 0.0 <= law.share10 <= 1.0):
        raise ValueError(f"share01 = {law.share01} and share10 = {law.share10} must lie in [0, 1]")
    return law


def _check_conditions(table: Any) -> Mapping[str, ConditionValue]:
    """Return the conditions of an operating point: finite numbers and words by name."""
    if not isinstance(table, dict) or not all(is_condition(value) for value in table.values()):
        raise ValueError(f"an operating point is {str(table)[:80]}, not names with numbers or words")
    return table


# --- writing ----------------------------------------------------------------------------------------------------------------------


def _format_profile(profile: Profile, arrays: str | None) -> Iterator[str]:
    """Yield the lines of a profile."""
    yield "# A memory profile: `weakcell emulate --memory file:PATH` runs a network on it."
    yield f"schema = {SCHEMA_OF_LAWS if isinstance(profile.law, TimeLaw | LevelLaw) else SCHEMA}"
    for name in ("name", "title", "source", "notes", "basis"):
        yield f"{name} = {format_value(getattr(profile, name))}"
    if arrays is not None:
        yield f"arrays = {format_value(arrays)}"
    for name, values in (("about", profile.about), ("fit", profile.fit)):
        if values:
            yield from ("", f"[{name}]")
            yield from (f"{format_key(key)} = {format_value(value)}" for key, value in values.items())
    for constant in profile.constants:
        yield from ("", "[[constants]]")
        yield from (f"{format_key(key)} = {format_value(value)}" for key, value in make_table(constant).items())
    for point in profile.points:
        yield from ("", "[[points]]", f"conditions = {format_value(dict(point.conditions))}", "terms = [")
        yield from (f"    {format_value(make_table(term))}," for term in point.terms)
        yield "]"
        if point.unmeasured is not None:
            yield f"unmeasured = {format_value(point.unmeasured)}"
    if profile.law is not None:
        yield from ("", "[law]")
        yield from (f"{format_key(key)} = {format_value(value)}" for key, value in make_table(profile.law).items())
    yield ""


def _make_condition(name: str, values: list[ConditionValue]) -> Condition:
    if any(isinstance(value, str) for value in values):
        return Condition(name, "", "as measured", str(values[0]), choices=tuple(dict.fromkeys(map(str, values))))
    numbers = [float(value) for value in values]
    return Condition(name, "", "as measured", numbers[0], low=min(numbers), high=max(numbers))


def _format_conditions(conditions: Mapping[str, ConditionValue]) -> str:
    return ", ".join(f"{key}={value}" for key, value in conditions.items()) or "no conditions"
