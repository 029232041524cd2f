"""What several conditions make together stays in the range that the law was checked for, or is refused; ratios are 1 at 1.

The derived quantities are computed here from their definitions. A law is not asked for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from weakcell.memmodels import Accesses, names, technology
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies.dram import RETENTION_PER_K, RETENTION_PER_V, VDD_RANGE
from weakcell.memmodels.technologies.rram import sigma

Given = dict[str, float | str]


def delta(c: Given) -> float:
    """Thermal stability at the temperature: ~ 1/T, and ~ the magnetisation where a Curie temperature is given."""
    weaker = 1.0
    if "curie" in c:
        weaker = (1 - (c["temperature"] / c["curie"]) ** 1.5) / (1 - (300 / c["curie"]) ** 1.5)
    return c["delta"] * 300 / c["temperature"] * weaker


def interval(c: Given) -> float:
    """The refresh interval at 45 °C and 1.35 V that loses as many cells."""
    return c["refresh_interval"] * math.exp(c["retention_slope"] * (c["temperature"] - 45) + RETENTION_PER_V * (1.35 - c["vdd"]))


def effective_vdd(c: Given) -> float:
    """The voltage at which the mean module has as many bad lines, above the lowest published one; only where lines are bad."""
    low, first = VDD_RANGE[str(c["vendor"])]
    return 1.0 if c["vdd"] - c["vdd_offset"] >= first else c["vdd"] - c["vdd_offset"] - low


def spoiled_far(c: Given) -> float:
    """The largest share of a level's cells that lie beyond the border behind the next level."""
    n = 2 ** int(c["bits_per_cell"]) - 1
    g = np.linspace(c["g_low"], c["g_high"], n + 1)
    wide = np.array([sigma(x, c["time"]) for x in g])
    borders = g[:-1] + np.diff(g) * wide[:-1] / (wide[:-1] + wide[1:])
    far = np.zeros(n + 1)
    far[: n - 1] += norm.sf((borders[1:] - g[: n - 1]) / wide[: n - 1])
    far[2:] += norm.cdf((borders[: n - 1] - g[2:]) / wide[2:])
    return float(far.max())


LONGEST = 2.048 * math.exp(RETENTION_PER_K * 25 + RETENTION_PER_V * 0.2)
STT = {"tau": 5.0, "delta": (30, 60), "temperature": (233, 398)}
CHECKED: list[tuple[str, Given, Callable[[Given], float], tuple[float, float]]] = [
    ("sttram", STT, delta, (30, 60)),
    ("sttram", {**STT, "curie": (400, 2000)}, delta, (30, 60)),
    ("sttram", {"pulse": (0.1, 1000), "tau_d": (0.01, 100)}, lambda c: c["pulse"] / c["tau_d"], (1, 20)),
    ("sttram", {"tau": 5.0, "current": (1.5, 3), "asymmetry": (1, 3)}, lambda c: c["current"] / c["asymmetry"], (1.5, 3)),
    ("sram-14nm", {"vdd": (0.0, 2), "vmin": (0.01, 2)}, lambda c: c["vdd"] / c["vmin"], (0.75, 1)),
    (
        "dram",
        {"refresh_interval": (0.064, 2.048), "temperature": (20, 70), "retention_slope": (0, 0.1), "vdd": (1.15, 1.35),
         "p_in_line": 0.02},
        interval,
        (0, LONGEST),
    ),
    (
        "dram",
        {"vendor": "ABC", "vdd": (1.025, 1.35), "vdd_offset": (-0.1, 0.1), "p_in_line": 0.02},
        effective_vdd,
        (0, 1),
    ),
    ("dram", {"trcd": (2.5, 13.125), "vdd": (1.15, 1.35)}, lambda c: (c["trcd"] < 10) * (1.35 - c["vdd"]), (0, 0)),
    ("dram", {"trcd": (2.5, 13.125), "temperature": (20, 70)}, lambda c: (c["trcd"] < 10) * (c["temperature"] - 20), (0, 0)),
    ("dram", {"vdd": (1.1, 1.35), "p_in_line": 0.02, "temperature": (20, 70)},
     lambda c: (c["vdd"] < VDD_RANGE["B"][1]) * (c["temperature"] - 20), (0, 0)),
    ("fefet", {"domains": 100.0, "temperature": (-40, 125), "window_slope": (0, 0.1)},
     lambda c: c["window_slope"] * (c["temperature"] - 25), (-0.9, 0.9)),
    ("rram", {"bits_per_cell": "23", "g_low": (0, 20), "g_high": (1, 40), "time": (1, 172800)}, spoiled_far, (0, 0.05)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ranges", "derived", "valid"), CHECKED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_conditions_in_range_do_not_leave_it_together(name, ranges, derived, valid, data) -> None:  # type: ignore[no-untyped-def]
    """Refused exactly where the derived quantity lies outside the range; within rounding of its ends, either will do."""
    tech = technology(name)
    asked: Given = {}
    for key, span in ranges.items():
        if isinstance(span, tuple):
            edge = st.sampled_from([float(span[0]), float(span[1])])
            asked[key] = data.draw(st.one_of(edge, st.floats(*span)), label=key)
        else:
            asked[key] = data.draw(st.sampled_from(span), label=key) if isinstance(span, str) else span
    if asked.get("g_low", 0.0) > asked.get("g_high", 1.0):
        asked["g_low"], asked["g_high"] = asked["g_high"], asked["g_low"]
    resolved = tech.resolve(asked)
    value = derived(resolved)
    if value != valid[0] and value != valid[1] and any(abs(value - end) < 1e-6 * max(abs(end), 1e-3) for end in valid):
        return
    if valid[0] <= value <= valid[1]:
        tech.terms(resolved)
    else:
        with pytest.raises(MemorySpecError):
            tech.terms(resolved)


# --- ratios ------------------------------------------------------------------------------------------------------------------

REFERENCES: dict[str, Given] = {
    "x E(Vmin)": {"v_over_vmin": 1.0},
    "x E(1.0 V)": {"vdd": 1.0},
    "x E(g_high = 40 uS)": {"g_high": 40.0},
}
"""Every unit of a relative energy, and the conditions that it names."""
NEEDED: dict[str, Given] = {
    "uniform": {"ber": 0.1},
    "eden": {"p": 0.1, "f": 0.5},
    "sttram": {"tau": 5.0},
    "fefet": {"domains": 100.0},
}


def energies(name: str) -> list[tuple[Given, str]]:
    """(conditions, unit) of every relative energy of a technology: at its defaults and for each word that a knob `energy` takes."""
    tech = technology(name)
    words = next((c.choices for c in tech.conditions if c.name == "energy"), ())
    found = []
    for choice in ({}, *({"energy": word} for word in words)):
        asked = {**NEEDED.get(name, {}), **choice}
        energy = tech.cost(tech.resolve(asked), 100, Accesses(1.0)).energy
        if energy is not None and energy.unit != "pJ":
            found.append((asked, energy.unit))
    return found


RELATIVE = [(name, asked, unit) for name in names() for asked, unit in energies(name)]


def test_all_relative_energies_are_found() -> None:
    assert {name for name, _, _ in RELATIVE} == {"sram-14nm", "sram-28nm-kc705b", "sram-28nm-vc707", "rram"}
    assert {unit for _, _, unit in RELATIVE} == set(REFERENCES)


@pytest.mark.parametrize(("name", "asked", "unit"), RELATIVE)
def test_a_relative_energy_is_exactly_1_at_its_reference_and_grows(name: str, asked: Given, unit: str) -> None:
    """At any number of accesses; and it does not fall where the condition that the unit names rises to the reference."""
    tech, (key, at) = technology(name), next(iter(REFERENCES[unit].items()))
    for bits, reads in product((1, 1000), (1.0, 7.0)):
        assert tech.cost(tech.resolve({**asked, key: at}), bits, Accesses(reads)).energy.value == 1.0
    low = next(c.low for c in tech.conditions if c.name == key)
    values = [tech.cost(tech.resolve({**asked, key: v}), 1, Accesses(1.0)).energy.value for v in np.linspace(low, at, 200)]
    assert np.all(np.diff(values) > 0)
    assert 0.0 < values[0] < 1.0
