"""Fit the loss of charge over time and temperature to counts of failing cells.

The law has a steep tail and a broad body (`technologies/retention.py`). Tail and width are those of eight DDR4 modules; level,
body, knee and activation energy are fitted to ln(share) by least squares. Body and knee lean on their mean and spread over these
modules, so that two or three waits suffice; many waits overrule them. What the measured probits differ from the law is kept as
offsets, as far as counting errors do not explain it. A law that misses by more than 0.05 decades (rms) without them is not
extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.errors import InputError
from weakcell.memmodels.retention_law import Rate, TimeLaw
from weakcell.memmodels.technologies.ddr4 import LAWS, SPEED_UP
from weakcell.memmodels.technologies.retention import BOLTZMANN, KELVIN, RetentionLaw, activation_energy, speed_up

Floats = npt.NDArray[np.float64]
FEWEST = 10
"""Flips of a point that takes part in a fit."""
MISFIT = 0.05
"""rms error of the law without offsets, in decades, beyond which it is not extrapolated."""
_SPREAD = 0.04
"""Error of the law itself, in ln(share): that of a fit to 11 waits is 0.02, of one to three waits 0.09."""
_REFERENCE, _TOGETHER = 90.0, 0.2


class RetentionCount(NamedTuple):
    """Charged cells that lost their charge.

    Attributes:
        time: s without refresh.
        temperature: °C.
        flips, cells: Lost cells, and all.
    """

    time: float
    temperature: float
    flips: int
    cells: int

    @property
    def share(self) -> float:
        """Flips as a share of the cells."""
        return self.flips / self.cells


@dataclass(frozen=True)
class RetentionFit:
    """A fitted law and how far it can be trusted.

    Attributes:
        law: The law; its other rate is unknown.
        rms, largest: Errors at the fitted points, in decades.
        held_out: (time, temperature, error in decades): each point predicted by a fit without it.
        verdict: The errors in words.
    """

    law: TimeLaw
    rms: float
    largest: float
    held_out: tuple[tuple[float, float, float], ...]
    verdict: str


def fit_retention(counts: Sequence[RetentionCount], lost: Rate) -> RetentionFit:
    """Fit the law.

    Args:
        counts: Of each time and temperature.
        lost: The rate that they count: p10 of true cells, p01 of anti-cells.

    Raises:
        InputError: Fewer than two points have ten flips and more.
    """
    used = sorted(one for one in counts if FEWEST <= one.flips < one.cells and one.time > 0.0)
    if len({(one.time, one.temperature) for one in used}) < 2:
        asked = f"A law of retention from {len(counts)} points"
        raise InputError(asked, f"{len(used)} of them have {FEWEST} flips and more, and two are needed", "Wait longer, or heat it")
    law = _fit(used, lost)
    plain = _errors(replace(law, times=(), offsets=()), used)
    errors, held_out = _errors(law, used), _hold_out(used, lost)
    rms, largest = math.sqrt(float(np.mean(plain**2))), float(np.abs(plain).max())
    verdict = f"the law without offsets fits with rms {rms:.3f}, largest {largest:.3f} decades over {len(used)} points"
    if held_out:
        missed = max(abs(error) for _, _, error in held_out)
        verdict += f"; with them, each point held out in turn is missed by at most {missed:.3f} decades"
    if not law.reaches_out:
        verdict += "; so far off, it is not extrapolated"
    return RetentionFit(law, math.sqrt(float(np.mean(errors**2))), float(np.abs(errors).max()), held_out, verdict)


def fit_gain(law: TimeLaw, counts: Sequence[RetentionCount]) -> TimeLaw:
    """Return the law with the cells that gain charge, exp(u + k ln(time)); without them if fewer than two waits have ten flips.

    law: of the cells that lose charge. counts: of cells without charge.
    """
    used = [one for one in counts if one.flips >= FEWEST]
    known = replace(law, unmeasured=None)
    if len({one.time for one in used}) < 2:
        return known
    beta = np.array([1.0 / (law.reference + KELVIN) - 1.0 / (one.temperature + KELVIN) for one in used]) / BOLTZMANN
    design = np.c_[np.ones(len(used)), np.log([one.time for one in used]), beta]
    columns = 3 if np.ptp(beta) > 0.0 else 2
    fitted = np.linalg.lstsq(design[:, :columns], np.log([one.share for one in used]), rcond=None)[0]
    offset, slope = map(float, fitted[:2])
    energy = float(fitted[2]) / slope if columns == 3 and slope > 0.0 else 0.0
    return replace(known, gain_offset=offset, gain_slope=slope, gain_energy=energy)


def _fit(used: Sequence[RetentionCount], lost: Rate) -> TimeLaw:
    """Return the law by least squares of ln(share)."""
    from scipy.optimize import least_squares
    from scipy.special import log_ndtr

    temperatures = sorted({one.temperature for one in used})
    reference = max(temperatures, key=lambda t: (sum(one.temperature == t for one in used), t))
    usual = activation_energy(SPEED_UP, 50.0, _REFERENCE)
    shift = math.log(speed_up(_REFERENCE, reference, usual))
    bodies, knees = (np.array([getattr(known, name) for known in LAWS.values()]) for name in ("body", "knee"))
    aim = np.array([bodies.mean(), knees.mean() + shift, usual])
    spread = np.array([bodies.std(ddof=1), math.hypot(knees.std(ddof=1), 0.5 * abs(shift)), 0.1])
    x, kelvin = np.log([one.time for one in used]), np.array([one.temperature for one in used])
    goal = np.log([one.share for one in used])
    weight = 1.0 / np.sqrt(_SPREAD**2 + np.array([(1.0 - one.share) / one.flips for one in used]))

    def misses(c: Floats) -> Any:
        level, body, knee, energy = c
        law = RetentionLaw(level, body, knee)
        times = [t + math.log(speed_up(temperature, reference, energy)) for t, temperature in zip(x, kelvin, strict=True)]
        said = log_ndtr([law.probit(math.exp(t)) for t in times])
        return np.concatenate([(said - goal) * weight, (np.array([body, knee, energy]) - aim) / spread])

    level, body, knee, energy = least_squares(misses, [-2.8, *aim], xtol=1e-12, ftol=1e-12).x
    times = [one.time * speed_up(one.temperature, reference, energy) for one in used]
    law = TimeLaw(
        lost, min(times), max(times), reference, temperatures[0], temperatures[-1],
        energy=float(energy) if len(temperatures) > 1 else 0.0, level=float(level), body=float(body), knee=float(knee),
        unmeasured="p01" if lost == "p10" else "p10",
    )  # fmt: skip
    rms = math.sqrt(float(np.mean(_errors(law, used) ** 2)))
    return _add_offsets(replace(law, reaches_out=rms <= MISFIT), used)


def _add_offsets(law: TimeLaw, used: Sequence[RetentionCount]) -> TimeLaw:
    """Return the law with what the measured probits differ from it.

    An offset is shrunk by the share of counting errors in it. Points less than a fifth of a factor e apart share one.
    """
    from scipy.special import ndtri

    found: list[tuple[float, float, float]] = []
    for time, one in sorted((law.equivalent(one.time, one.temperature), one) for one in used):
        counting = (1.0 - one.share) / one.flips
        offset = (float(ndtri(one.share)) - law.probit(time)) / (1.0 + counting / _SPREAD**2)
        if found and math.log(time / found[-1][0]) < _TOGETHER:
            before, mean, points = found[-1]
            found[-1] = before, (mean * points + offset) / (points + 1.0), points + 1.0
        else:
            found.append((time, offset, 1.0))
    return replace(law, times=tuple(time for time, _, _ in found), offsets=tuple(offset for _, offset, _ in found))


def _errors(law: TimeLaw, used: Sequence[RetentionCount]) -> Floats:
    """Return log10(law / counted) of each point."""
    from scipy.special import log_ndtr

    probits = [law.probit(law.equivalent(one.time, one.temperature)) for one in used]
    return np.asarray(log_ndtr(probits) - np.log([one.share for one in used])) / math.log(10.0)


def _hold_out(used: Sequence[RetentionCount], lost: Rate) -> tuple[tuple[float, float, float], ...]:
    """Return the error of each point, predicted by the others."""
    found = []
    for one in used:
        others = [other for other in used if other != one]
        if len(others) < 2:
            continue
        guess = _fit(others, lost)
        if guess.coldest == guess.hottest != one.temperature:
            continue  # without its points there is one temperature, which says nothing about this one
        found.append((one.time, one.temperature, float(_errors(guess, [one])[0])))
    return tuple(found)
