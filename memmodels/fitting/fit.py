"""Fit a profile to read-backs, by maximum likelihood.

    fit(readbacks, bank)                   error terms at each operating point
    fit(readbacks, bank, law="vdd")        a probit over one condition, from nested cells (`voltage_law.py`)

BIC chooses the structure (`models.py`) at the operating point with most faulty cells. It is kept at all other points, since it
belongs to the array and not to the voltage. Rates have Clopper-Pearson intervals where cells are independent, and bootstrap
intervals over groups where they are not. From a shell: `python -m weakcell.memmodels.fitting` (`__main__.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weakcell.memmodels.error_model.structure import Bank, Shared
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.fitting.counts import LINE, Evidence, ReadBack, count_evidence
from weakcell.memmodels.fitting.models import Model, candidates, estimate_constants, make_terms
from weakcell.memmodels.fitting.rate_intervals import bootstrap_rate, counted_rates
from weakcell.memmodels.fitting.voltage_law import VoltageLaw, fit_law
from weakcell.memmodels.memory import ConditionValue
from weakcell.memmodels.profile import Constant, OperatingPoint, ProbitLaw, Profile
from weakcell.memmodels.recording import Recording, same_point

__all__ = ["Fit", "ReadBack", "bootstrap_rate", "extract_readbacks", "fit"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted profile and how it came about.

    Attributes:
        profile: The result.
        models: Candidates at the deciding operating point, best first.
        counted: Counted `rate`, `p01` and `p10` of each point (`rate_intervals.py`), in the order of the read-backs.
        law: The fitted law, if one was asked for.
        by_point: Fitted constants of each point; empty if a law was fitted.
    """

    profile: Profile
    models: tuple[Model, ...]
    counted: tuple[Mapping[str, Constant], ...]
    law: VoltageLaw | None = None
    by_point: tuple[tuple[Constant, ...], ...] = ()

    @property
    def best(self) -> Model:
        """The model with the lowest BIC."""
        return self.models[0]

    def __str__(self) -> str:
        lines = [f"{self.best.structure}, errors last per {self.best.lifetime}"]
        lines += [f"  {constant.name} = {constant}" for constant in self.profile.constants]
        others = {f"{m.structure}, per {m.lifetime}": m.bic - self.best.bic for m in reversed(self.models[1:])}
        lines += [f"  BIC +{worse:.1f}: {name}" for name, worse in sorted(others.items(), key=lambda other: other[1])]
        return "\n".join(lines)


def fit(
    readbacks: Sequence[ReadBack],
    bank: Bank | None = None,
    law: str | None = None,
    *,
    unit: str = "",
    name: str = "fitted",
    about: Mapping[str, str] | None = None,
    line: int = LINE,
) -> Fit:
    """Return the profile that explains the read-backs best.

    Args:
        readbacks: One or more operating points.
        bank: Rows and columns of a bank.
        law: The condition that a probit runs over; None fits each point by itself.
        unit: Of that condition.
        name: Of the profile.
        about: Its title, source and notes.
        line: Cells of a line.

    Raises:
        InputError: The read-backs do not determine what is asked.
    """
    banks = bank or Bank()
    points = _group_by_point(readbacks)
    evidence = [count_evidence(backs, banks, line) for backs in points]
    deciding = max(evidence, key=lambda one: one.faulty)
    models = tuple(sorted(candidates(deciding), key=lambda model: model.bic))
    counted = tuple(counted_rates(one, models[0], deciding) for one in evidence)
    arrays = {
        "faulty": np.array([one.faulty for one in evidence]),
        "cells": np.array([one.cells for one in evidence]),
        "reads": np.array([one.reads for one in evidence]),
    }
    if law is not None:
        found = _fit_law(points, law, unit, models[0], banks, deciding.inverting)
        probit = _make_probit_law(points, law, unit, models[0], found, bank=banks, evidence=deciding)
        return Fit(
            _with_metadata(Profile(name, law=probit, constants=found.constants, arrays=arrays, fit=_fit_table(found)), about),
            models,
            counted,
            found,
        )
    fitted = [models[0] if one is deciding else _fit_alike(models[0], one) for one in evidence]
    terms = tuple(
        OperatingPoint(one.conditions, make_terms(m, banks, line, one.inverting), one.unmeasured)
        for one, m in zip(evidence, fitted, strict=True)
    )
    by_point = tuple(
        _widen_bounds(estimate_constants(m, one), rates) for one, m, rates in zip(evidence, fitted, counted, strict=True)
    )
    constants = tuple(
        replace(constant, name=_label_constant(constant.name, one.conditions, len(evidence)))
        for one, own in zip(evidence, by_point, strict=True)
        for constant in own
    )
    return Fit(_with_metadata(Profile(name, terms, constants=constants, arrays=arrays), about), models, counted, by_point=by_point)


def _widen_bounds(constants: tuple[Constant, ...], counted: Mapping[str, Constant]) -> tuple[Constant, ...]:
    """Give fitted rates of a point without errors the upper bounds of the counted ones, which allow for clusters."""
    if counted["rate"].value > 0.0:
        return constants
    bounds = {"p": counted["rate"], **counted}
    return tuple(
        replace(one, high=max(one.high, bounds[one.name].high), method=bounds[one.name].method) if one.name in bounds else one
        for one in constants
    )


def extract_readbacks(recording: Recording) -> list[ReadBack]:
    """Return all read-backs of a recording."""
    return [
        ReadBack(region.written, take.reads, region.layout.bits, region.first_word * 64, take.point)
        for take in recording.takes
        for region in [recording.regions[take.region]]
    ]


def _group_by_point(readbacks: Sequence[ReadBack]) -> list[list[ReadBack]]:
    if not readbacks:
        raise InputError("Fitting a profile", "there are no read-backs", "Record some first")
    points: list[list[ReadBack]] = []
    for back in readbacks:
        home = next((point for point in points if same_point(point[0].conditions, back.conditions)), None)
        if home is None:
            points.append([back])
        else:
            home.append(back)
    return points


def _fit_alike(model: Model, evidence: Evidence) -> Model:
    """Return the same structure fitted at another point, or the best independent one if there are too few faults."""
    fitted = []
    for one in candidates(evidence):
        if (one.structure, one.lifetime, one.names) == (model.structure, model.lifetime, model.names):
            return one
        fitted.append(one)
    alike = [one for one in fitted if one.structure == model.structure]
    return min(alike or fitted, key=lambda one: one.bic)


def _fit_law(points: list[list[ReadBack]], law: str, unit: str, model: Model, bank: Bank, inverting: bool) -> VoltageLaw:
    """Fit a law over the condition `law`; InputError if these read-backs do not determine one."""
    asked = f"Fitting a law over {law}"
    if any(law not in backs[0].conditions for backs in points):
        known = ", ".join(points[0][0].conditions) or "none"
        raise InputError(asked, f"the operating points have no condition {law!r}, but {known}", "Choose one of theirs")
    if model.lifetime is not Lifetime.DIE or "F" in model.names or "F0" in model.names:
        found = "these cells err at some reads and not at others, so they have no threshold"
        raise InputError(asked, found, "Fit the operating points one by one, without a law")
    if model.structure == "lines":
        found = "these errors come in bad lines, whose cells do not fail one by one"
        raise InputError(asked, found, "Fit the operating points one by one, without a law")
    return fit_law([(float(backs[0].conditions[law]), backs) for backs in points], unit, model, bank, inverting)


def _make_probit_law(
    points: list[list[ReadBack]], law: str, unit: str, model: Model, found: VoltageLaw, *, bank: Bank, evidence: Evidence
) -> ProbitLaw:
    volts = [float(backs[0].conditions[law]) for backs in points]
    mu, s = found.constants[0].value, found.constants[1].value
    (term,) = make_terms(model, bank, inverting=evidence.inverting)
    structure = term.structure
    if isinstance(structure, Shared) and found.share is not None:
        structure = replace(structure, share=found.share)
    like = ErrorTerm("access", Lifetime.DIE, 0.0, 0.0, term.cells, structure=structure, preference=term.preference)
    share01, share10 = (1.0, 1.0) if evidence.inverting else (found.share01, found.share10)
    return ProbitLaw(law, unit, min(volts), max(volts), mu, s, share01, share10, like, evidence.unmeasured)


def _fit_table(law: VoltageLaw) -> dict[str, float | str]:
    """Return what a profile says about the fit of its law."""
    tested = law.goodness
    numbers: dict[str, float | str] = {}
    if tested.degrees:
        numbers = {"chi_square": tested.chi_square, "degrees_of_freedom": tested.degrees, "p_value": tested.p_value}
        numbers |= {"dispersion": tested.dispersion}
    rivals = {f"bic_above_best_{kind.replace(' ', '_')}": value for kind, value in law.rivals.items()}
    return {
        "law": law.kind,
        "verdict": str(tested),
        **numbers,
        "cells_that_erred": law.erred,
        "not_nested": law.exceptions,
        **rivals,
    }


def _with_metadata(profile: Profile, about: Mapping[str, str] | None) -> Profile:
    metadata = about or {}
    return replace(profile, title=metadata.get("title", ""), source=metadata.get("source", ""), notes=metadata.get("notes", ""))


def _label_constant(name: str, conditions: Mapping[str, ConditionValue], points: int) -> str:
    return name if points == 1 else f"{name} at {', '.join(f'{key}={value}' for key, value in conditions.items())}"
