"""Read-backs -> a profile, by maximum likelihood.

    fit(readbacks, bank)                   error terms at each operating point
    fit(readbacks, bank, law="vdd")        a probit over one condition, from nested cells (`fit_law`)

The structure is chosen by BIC (`fit_models`) at the operating point with the most faulty cells, and kept at all others, since it
belongs to the array and not to the voltage. Rates come with Clopper-Pearson intervals where cells are independent, and with a
bootstrap over groups where they are not. From a shell:

    python -m memmodels.fit RECORDING.npz PROFILE.toml [--rows 1024 --columns 16 --line 512] [--law vdd]
    python -m memmodels.fit --coverage [--dies 400]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memmodels.errors import InputError
from memmodels.fit_counts import LINE, Evidence, ReadBack, evidence_of
from memmodels.fit_law import Law, fit_law
from memmodels.fit_models import Model, candidates, clopper_pearson, constants_of, terms_of
from memmodels.memory import ConditionValue
from memmodels.profile import Constant, OperatingPoint, ProbitLaw, Profile
from memmodels.recording import Recording, same_point
from memmodels.structure import Bank, Shared
from memmodels.terms import ErrorTerm, Lifetime

__all__ = ["Fit", "ReadBack", "bootstrap_rate", "fit", "rate_of", "readbacks_of"]


@dataclass(frozen=True, eq=False)
class Fit:
    """What was fitted. models: of the deciding point, best first. rates: the share of cells that erred, one per point.

    by_point: the constants of each point, in the order of the read-backs; empty where a law was fitted.
    """

    profile: Profile
    models: tuple[Model, ...]
    rates: tuple[Constant, ...]
    law: Law | None = None
    by_point: tuple[tuple[Constant, ...], ...] = ()

    @property
    def best(self) -> Model:
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
    unit: str = "",
    name: str = "fitted",
    about: Mapping[str, str] | None = None,
    line: int = LINE,
) -> Fit:
    """The profile that explains the read-backs best. law: the condition that a probit runs over. about: title, source, notes.

    bank, line: how many cells a bank's rows and columns and a line have. InputError where the read-backs cannot tell what is asked.
    """
    banks = bank or Bank()
    points = _by_point(readbacks)
    evidence = [evidence_of(backs, banks, line) for backs in points]
    deciding = max(evidence, key=lambda one: one.faulty)
    models = tuple(sorted(candidates(deciding), key=lambda model: model.bic))
    rates = tuple(rate_of(one, models[0], deciding) for one in evidence)
    arrays = {
        "faulty": np.array([one.faulty for one in evidence]),
        "cells": np.array([one.cells for one in evidence]),
        "reads": np.array([one.reads for one in evidence]),
    }
    if law is not None:
        found = _law(points, law, unit, models[0], banks)
        probit = _probit(points, law, unit, models[0], found, banks)
        return Fit(_told(Profile(name, law=probit, constants=found.constants, arrays=arrays), about), models, rates, found)
    fitted = [models[0] if one is deciding else _like(models[0], one) for one in evidence]
    terms = tuple(OperatingPoint(one.conditions, terms_of(m, banks, line)) for one, m in zip(evidence, fitted, strict=True))
    by_point = tuple(constants_of(m, one) for one, m in zip(evidence, fitted, strict=True))
    constants = tuple(
        replace(constant, name=_label(constant.name, one.conditions, len(evidence)))
        for one, own in zip(evidence, by_point, strict=True)
        for constant in own
    )
    return Fit(_told(Profile(name, terms, constants=constants, arrays=arrays), about), models, rates, by_point=by_point)


def rate_of(evidence: Evidence, model: Model, deciding: Evidence | None = None) -> Constant:
    """The share of cells that erred at least once, on the bits that were stored.

    Where none did and cells fail in groups, its upper bound is that of fewer, independent cells: by the design effect (bootstrap
    variance over binomial variance) at the deciding point, which has the most faults and so the strongest clustering.
    """
    k, n = evidence.faulty, evidence.cells
    if model.axis is None:
        return Constant("rate", k / n, "", *clopper_pearson(k, n), method=f"Clopper-Pearson, {k} of {n}")
    if k == 0:
        effect = _design_effect(deciding or evidence, model)
        high = clopper_pearson(0, max(round(n / effect), 1))[1]
        return Constant("rate", 0.0, "", 0.0, high, method=f"Clopper-Pearson, 0 of {n}, design effect {effect:.3g}")
    groups = evidence.groups[model.axis].pooled
    low, high = bootstrap_rate(groups.k1, groups.n1, groups.times)
    return Constant("rate", k / n, "", low, high, method=f"bootstrap over {model.axis}s")


def _design_effect(evidence: Evidence, model: Model) -> float:
    """By how much groups along the model's axis widen the variance of the rate, at least 1; 1 where there are no faults."""
    k, n = evidence.faulty, evidence.cells
    if model.axis is None or k == 0:
        return 1.0
    groups = evidence.groups[model.axis].pooled
    count, rate = int(groups.times.sum()), k / n
    spread = float((groups.times * (groups.k1 - rate * groups.n1) ** 2).sum()) * count / max(count - 1, 1)
    return max(spread / (n * rate * (1.0 - rate)), 1.0)


def bootstrap_rate(
    faulty: Any, cells: Any, times: Any = None, confidence: float = 0.95, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a rate when whole groups are drawn again with replacement; `times` groups have these counts."""
    k, n = np.asarray(faulty, dtype=float), np.asarray(cells, dtype=float)
    count = np.ones(k.size, dtype=np.int64) if times is None else np.asarray(times)
    drawn = np.random.default_rng(seed).multinomial(int(count.sum()), count / count.sum(), size=draws)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile((drawn @ k) / (drawn @ n), [tail, 1.0 - tail])
    return float(low), float(high)


def readbacks_of(recording: Recording) -> list[ReadBack]:
    """Everything that a recording holds."""
    return [
        ReadBack(region.written, take.reads, region.layout.bits, region.first_word * 64, take.point)
        for take in recording.takes
        for region in [recording.regions[take.region]]
    ]


def _by_point(readbacks: Sequence[ReadBack]) -> list[list[ReadBack]]:
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


def _like(model: Model, evidence: Evidence) -> Model:
    """The same structure at another point; the best of the independent ones where that cannot be fitted (too few faults)."""
    fitted = []
    for one in candidates(evidence):
        if (one.structure, one.lifetime, one.names) == (model.structure, model.lifetime, model.names):
            return one
        fitted.append(one)
    alike = [one for one in fitted if one.structure == model.structure]
    return min(alike or fitted, key=lambda one: one.bic)


def _law(points: list[list[ReadBack]], law: str, unit: str, model: Model, bank: Bank) -> Law:
    """The law over the condition `law`; InputError if these read-backs cannot tell one."""
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
    return fit_law([(float(backs[0].conditions[law]), backs) for backs in points], unit, model, bank)


def _probit(points: list[list[ReadBack]], law: str, unit: str, model: Model, found: Law, bank: Bank) -> ProbitLaw:
    volts = [float(backs[0].conditions[law]) for backs in points]
    mu, s = found.constants[0].value, found.constants[1].value
    (term,) = terms_of(model, bank)
    structure = term.structure
    if isinstance(structure, Shared) and found.share is not None:
        structure = replace(structure, share=found.share)
    like = ErrorTerm("access", Lifetime.DIE, 0.0, 0.0, structure=structure, preference=term.preference)
    return ProbitLaw(law, unit, min(volts), max(volts), mu, s, found.share01, found.share10, like)


def _told(profile: Profile, about: Mapping[str, str] | None) -> Profile:
    told = about or {}
    return replace(profile, title=told.get("title", ""), source=told.get("source", ""), notes=told.get("notes", ""))


def _label(name: str, conditions: Mapping[str, ConditionValue], points: int) -> str:
    return name if points == 1 else f"{name} at {', '.join(f'{key}={value}' for key, value in conditions.items())}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands at the head of this module."""
    parser = argparse.ArgumentParser(prog="python -m memmodels.fit", description="Fit a memory profile to recorded read-backs.")
    parser.add_argument("recording", nargs="?")
    parser.add_argument("profile", nargs="?")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--line", type=int, default=LINE, help="cells of a line: errors may come in bad lines")
    parser.add_argument("--law", help="the condition that a probit runs over")
    parser.add_argument("--unit", default="")
    parser.add_argument("--coverage", action="store_true", help="fit simulated dies and count how often intervals hold the truth")
    parser.add_argument("--dies", type=int, default=400)
    parser.add_argument("--only", help="with --coverage: one structure")
    given = parser.parse_args(arguments)
    if given.coverage:
        from memmodels.fit_coverage import report

        report(given.dies, given.only)
        return
    if not given.recording or not given.profile:
        parser.error("give RECORDING.npz and PROFILE.toml, or --coverage")
    from memmodels.recording import load

    readbacks = readbacks_of(load(given.recording))
    bank = Bank(given.rows, given.columns)
    found = fit(readbacks, bank, given.law, given.unit, name=str(given.profile), line=given.line)
    found.profile.save(given.profile)
    print(found)


if __name__ == "__main__":
    main()
