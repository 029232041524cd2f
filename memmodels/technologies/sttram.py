"""STT-RAM: a write that does not switch, a bit that flips by itself, a read that disturbs.

write       WER = 1 - exp(-(pi^2/4) D (i - 1) / (i exp(2 tau (i - 1) u) - 1)),  u = 1 + 1.197 / (D (i - 1)^1.868)
            i = I/Ic0, tau = pulse / tau_D, D = thermal stability. Lifetime write, only where the bit switches: the cell keeps its
            old value. 1 is the antiparallel state, which is harder to write: a 1 fails with WER(i / asymmetry) (p10: written 1,
            read 0), a 0 with WER(i) (p01).
            Butler et al., IEEE Trans. Magn. 48 (2012), corrected by u to our Fokker-Planck solutions: a computation, not a
            measurement. Valid: D 30 ... 60, i 1.5 ... 3, tau 1 ... 20.
retention   x = (time / t0) exp(-D(T)), t0 = 1 ns; p = (1 - exp(-2 x)) / 2 both ways, or 1 - exp(-x) towards `favoured` alone
            Accumulating in time, resampled at each write. For small x the first form is 1 - exp(-x) too; its limit is 1/2.
disturb     p = 1 - exp(-(read_pulse / t0) exp(-D(T) (1 - i_read)))  per read, i_read = read current / Ic0
            Accumulating over reads until the next write, in the direction of the read current (`disturbs`).

D(T) = D (300/T), times (1 - (T/Tc)^1.5) / (1 - (300/Tc)^1.5) if a Curie temperature is given; T in kelvin. D(T) must be in the
valid range of D.

Energy: the 22 nm array of `support.py`, or a survey macro; a write is V^2/R t if the user gives v_write, resistance and pulse.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.cost import USE_CONDITIONS, EnergyRates, access_cost
from weakcell.memmodels.curves import Curve, Mark, Panel, hold_out_ends, make_grid
from weakcell.memmodels.definition import Condition, Conditions, Technology
from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
from weakcell.memmodels.memory import Accesses, Cost, Quantity
from weakcell.memmodels.technologies.support import EXTRAPOLATE, array_cost, number, refuse, table, together, within

CORRECTION, CORRECTION_EXPONENT = 1.197, 1.868
T0_NS = 1.0
_NAME = "sttram"
_CURRENT, _TAU, _DELTA = (1.5, 3.0), (1.0, 20.0), (30.0, 60.0)
_CURRENT_BEYOND, _TAU_BEYOND, _DELTA_BEYOND = (1.01, 20.0), (0.1, 200.0), (10.0, 200.0)
"""Checked ranges, and those of extrapolate=yes. They hold for conditions and for quantities that several conditions determine
together: delta at the temperature, current / asymmetry, pulse / tau_d."""


def write_error_rate(delta: float, current: float, tau: float) -> float:
    """Return P(a pulse of tau (in tau_D) at `current` (in Ic0) does not switch the cell)."""
    over = current - 1.0
    u = 1.0 + CORRECTION / (delta * over**CORRECTION_EXPONENT)
    growth = 2.0 * tau * over * u
    if growth > 700.0:
        return 0.0
    exponent = (math.pi**2 / 4.0) * delta * over / (current * math.exp(growth) - 1.0)
    return float(-math.expm1(-exponent))


def stability(conditions: Conditions) -> float:
    """Return D at the temperature; MemorySpecError outside the range that the law was checked for."""
    kelvin, delta = number(conditions, "temperature"), number(conditions, "delta")
    name = f"delta at the temperature (delta={delta:g}, temperature={kelvin:g})"
    return within(_NAME, conditions, name, _delta_at(kelvin, delta, conditions), _DELTA, beyond=_DELTA_BEYOND)


def _delta_at(kelvin: float, delta: float, conditions: Conditions) -> float:
    if "curie" not in conditions:
        return delta * (300.0 / kelvin)
    curie = number(conditions, "curie")
    if kelvin >= curie:
        raise refuse(_NAME, f"temperature={kelvin:g} with curie={curie:g}", "nothing is magnetic there", "Choose a lower one")
    weaker = (1.0 - math.pow(kelvin / curie, 1.5)) / (1.0 - math.pow(300.0 / curie, 1.5))
    return delta * (300.0 / kelvin) * weaker


def terms(conditions: Conditions) -> tuple[ErrorTerm, ...]:
    """Return write errors, retention and, if a read current is given, read disturb."""
    always = (write(conditions), retention(conditions))
    return (*always, disturb(conditions)) if together(_NAME, conditions, "read_current", "read_pulse") else always


def write(conditions: Conditions) -> ErrorTerm:
    """Return writes that do not switch; a 1 is harder to write by `asymmetry` in current."""
    tau, delta, current = pulse_in_tau(conditions), stability(conditions), number(conditions, "current")
    weaker = current / number(conditions, "asymmetry")
    within(_NAME, conditions, "current / asymmetry", weaker, _CURRENT, beyond=_CURRENT_BEYOND)
    p01, p10 = write_error_rate(delta, current, tau), write_error_rate(delta, weaker, tau)
    return ErrorTerm("write", Lifetime.WRITE, p01, p10, only_switched=True)


def pulse_in_tau(conditions: Conditions) -> float:
    """Return the pulse width in units of tau_D."""
    timed = "tau_d" in conditions
    if timed == ("tau" in conditions) or (timed and "pulse" not in conditions):
        raise refuse(
            _NAME,
            "the pulse" if not timed else "tau_d",
            "the law needs the pulse in units of tau_D, whose usual values were only recalled",
            "Give either tau, or pulse and tau_d in ns",
        )
    if not timed:
        return number(conditions, "tau")
    tau = number(conditions, "pulse") / number(conditions, "tau_d")
    return within(_NAME, conditions, "pulse / tau_d", tau, _TAU, beyond=_TAU_BEYOND)


def retention(conditions: Conditions) -> ErrorTerm:
    """Return bits that flip by themselves within `time`."""
    x = number(conditions, "time") * 1e9 / T0_NS * math.exp(-stability(conditions))
    favoured = str(conditions["favoured"])
    if favoured == "none":
        p = -math.expm1(-2.0 * x) / 2.0
        return ErrorTerm("retention", Lifetime.ACCUMULATING, p, p, Cells.INVERT, exposure="time")
    return _one_way("retention", favoured, -math.expm1(-x), "time")


def disturb(conditions: Conditions) -> ErrorTerm:
    """Return bits that the read current switches, per read."""
    barrier = stability(conditions) * (1.0 - number(conditions, "read_current"))
    p = -math.expm1(-number(conditions, "read_pulse") / T0_NS * math.exp(-barrier))
    return _one_way("read disturb", str(conditions["disturbs"]), p, "reads")


def _one_way(name: str, to: str, p: float, exposure: Literal["reads", "time"]) -> ErrorTerm:
    """Return a term that changes cells to one value only."""
    if to == "one":
        return ErrorTerm(name, Lifetime.ACCUMULATING, p, 0.0, preference="one", exposure=exposure)
    return ErrorTerm(name, Lifetime.ACCUMULATING, 0.0, p, preference="zero", exposure=exposure)


def cost(conditions: Conditions, bits: int, accesses: Accesses) -> Cost:
    """Return joules of the array or of a survey macro; the write from V^2/R t if the user gives it."""
    write = None
    if together(_NAME, conditions, "v_write", "resistance"):
        if "pulse" not in conditions:
            raise refuse(_NAME, "v_write without pulse", "the energy is V^2/R times the pulse", "Give pulse and tau_d in ns")
        joule = number(conditions, "v_write") ** 2 / number(conditions, "resistance") * number(conditions, "pulse") * 1e-9
        write = Quantity(joule * 1e12, "pJ/bit", "computed", "V^2/R t with the user's values")
    pulse = Quantity(number(conditions, "pulse"), "ns", "computed", "the pulse alone") if "pulse" in conditions else None
    if conditions["energy"] == "nvsim-22nm":
        return array_cost("STT", conditions, bits, accesses, write=write, write_latency=pulse)
    read = Quantity(0.7, "pJ/bit", "published", _MACRO)
    return access_cost(conditions, bits, accesses, EnergyRates(read, write or Quantity(4.5, "pJ/bit", "published", _MACRO)))


def published_curve() -> tuple[Panel, ...]:
    """Return write errors against Fokker-Planck solutions, and the laws of retention and read disturb."""
    solved = np.array([[float(row[key]) for key in ("delta", "current", "tau", "rate")] for row in table("stt_write")])
    write = tuple(
        Curve(
            f"I = {current:g} Ic0, Fokker-Planck",
            tuple((tau, rate) for delta, i, tau, rate in solved.tolist() if (delta, i) == (60.0, current)),
            law=lambda tau, current=current: write_error_rate(60.0, current, tau),  # type: ignore[misc]
            law_x=make_grid(1.0, 20.0),
        )
        for current in (1.5, 2.0, 3.0)
    )
    kept, disturbed = [], []
    for delta in (30, 40, 50, 60):
        lost = lambda t, delta=delta: retention(STTRAM.resolve({"time": t, "delta": delta})).p01  # noqa: E731
        kept.append(Curve(f"D = {delta}", law=lost, law_x=tuple(np.logspace(0, 10, 201).tolist())))
        read = lambda i, delta=delta: _disturb_rate(i, delta)  # noqa: E731
        disturbed.append(Curve(f"D = {delta}", law=read, law_x=make_grid(0.0, 0.9)))
    title = f"Write error, D = 60 (ours; D held out {hold_out_stability(solved):.2f} decades)"
    ten_years = (Mark("x", (3.156e8,), "10 years"),)
    return (
        Panel("sttram", "STT-RAM", title, "pulse / τD", "write error rate", write, y_range=(1e-9, 2.0)),
        Panel("sttram", "STT-RAM", "Retention, 300 K (law only)", "time since the write (s)", "bit error rate", tuple(kept),
              ten_years, x_log=True, y_range=(1e-15, 2.0)),
        Panel("sttram", "STT-RAM", "Read disturb, 5 ns reads (law only)", "read current / Ic0", "bit error rate per read",
              tuple(disturbed), y_range=(1e-25, 2.0)),
    )  # fmt: skip


def _disturb_rate(current: float, delta: float) -> float:
    return disturb(STTRAM.resolve({"read_current": current, "read_pulse": 5.0, "delta": delta})).p10


def hold_out_stability(rows: npt.NDArray[np.float64]) -> float:
    """Return the error of the write law at stabilities that were held out, in decades.

    Both constants of u are fitted again.

    Args:
        rows: (n, 4) stability, current / Ic0, pulse / tau_D, write error rate.
    """
    from scipy.optimize import least_squares

    delta, current, tau, rates = rows.T

    def law(c: npt.NDArray[np.float64], which: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        d, i, t = delta[which], current[which], tau[which]
        growth = 2.0 * t * (i - 1.0) * (1.0 + c[0] / (d * (i - 1.0) ** c[1]))
        return np.asarray(np.log(-np.expm1(-(math.pi**2 / 4.0) * d * (i - 1.0) / (i * np.exp(growth) - 1.0))))

    def refit(kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return law(least_squares(lambda c: law(c, kept) - np.log(rates[kept]), (1.0, 2.0)).x, ~kept)

    return hold_out_ends(refit, delta, rates)


_MACRO = "survey: 28 nm 1 Mb, ISSCC 2018"

STTRAM = Technology(
    name=_NAME,
    title="STT-RAM: write errors, retention and read disturb of a perpendicular cell",
    conditions=(
        Condition("tau", "", "pulse width / tau_D (no default)", low=_TAU[0], high=_TAU[1], beyond=_TAU_BEYOND),
        Condition("pulse", "ns", "pulse width, together with tau_d, instead of tau; also for energy", low=0.1, high=1000.0),
        Condition("tau_d", "ns", "time constant of the cell, (1 + a^2) / (a gamma mu0 Hk) (no default)", low=0.01, high=100.0),
        Condition("current", "", "write current / Ic0", default=2.0, low=_CURRENT[0], high=_CURRENT[1], beyond=_CURRENT_BEYOND),
        Condition("asymmetry", "", "how much more current a 1 needs than a 0", default=1.0, low=1.0, high=3.0),
        Condition("delta", "", "thermal stability at 300 K", default=60.0, low=_DELTA[0], high=_DELTA[1], beyond=_DELTA_BEYOND),
        Condition("temperature", "K", "of the cells; delta at it must stay in 30 … 60", default=300.0, low=233.0, high=398.0),
        Condition("curie", "K", "Curie temperature of the free layer (D ~ 1/T alone unless given)", low=400.0, high=2000.0),
        Condition("time", "s", "time since the write", default=0.0, low=0.0, high=1e10),
        Condition("favoured", "", "the value a stray field favours", default="none", choices=("none", "zero", "one")),
        Condition("read_current", "", "read current / Ic0, with read_pulse; adds read disturb", low=0.0, high=0.99),
        Condition("read_pulse", "ns", "length of a read, with read_current", low=0.01, high=1000.0),
        Condition("disturbs", "", "the value the read current writes", default="zero", choices=("zero", "one")),
        Condition("v_write", "V", "write voltage, with resistance and pulse; write energy V^2/R t", low=0.01, high=5.0),
        Condition("resistance", "ohm", "resistance of cell and transistor while writing", low=1.0, high=1e8),
        Condition("energy", "", "where energies are from", default="nvsim-22nm", choices=("nvsim-22nm", "isscc-2018-28nm")),
        EXTRAPOLATE,
        *USE_CONDITIONS,
    ),
    terms=terms,
    cost=cost,
    law="WER = 1 - exp(-(pi^2/4) D (i - 1) / (i exp(2 tau (i - 1) u) - 1)); retention 1 - exp(-(t/t0) exp(-D)); "
    "read disturb 1 - exp(-(t_read/t0) exp(-D (1 - i_read))) per read",
    source="Butler et al., IEEE Trans. Magn. 48 (2012), corrected to our Fokker-Planck solutions; read disturb Bishnoi, ITC 2014",
    basis="computed",
    sweep="tau",
    constants=(
        ("u", f"1 + {CORRECTION} / (D (i - 1)^{CORRECTION_EXPONENT})", "computed"),
        ("t0", f"{T0_NS:g} ns", "assumed"),
        ("current, delta", "2 and 60 unless given: a design point, not a chip", "assumed"),
        ("asymmetry", "1 unless given: usual values were only recalled", "assumed"),
        ("fit error", "rms 0.11 decades, largest 0.28, against Fokker-Planck solutions", "computed"),
    ),
    notes="A write that switches nothing cannot fail. A 1 is the antiparallel state. Macros report single error rates "
    "(1e-7 to 1e-4 at 20 to 200 ns), design targets that no curve can be fitted to. Left out because only recalled: tau_D of "
    "1 to 3 ns, a current asymmetry of 1.2 to 1.5.",
    published_curve=published_curve,
)
