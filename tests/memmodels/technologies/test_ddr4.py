"""DDR4 retention: the law against the published counts, its one factor over temperature, nesting, and its valid range."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tests.memmodels.evidence import binomial
from tests.memmodels.technologies.reads import decades, within, written, wrong_bits
from weakcell.memmodels import open_memory, parse_spec
from weakcell.memmodels.address import popcount
from weakcell.memmodels.curves import hold_out_probit
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import ddr4
from weakcell.memmodels.technologies.support import table


def published(module: str, temperature: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """(intervals in s, rates) of a module."""
    rows = [row for row in table("ddr4_retention") if (row["module"], row["temperature"]) == (module, str(temperature))]
    return np.array([float(row["interval"]) for row in rows]), np.array([float(row["rate"]) for row in rows])


def test_rates_are_counts_of_one_bank() -> None:
    for row in table("ddr4_retention"):
        assert float(row["rate"]) == pytest.approx(int(row["flips"]) / 2**27, rel=1e-4)


@pytest.mark.parametrize("module", ddr4.PROBITS)
def test_the_law_is_within_its_error(module: str) -> None:
    t, p = published(module)
    rms, largest = decades([ddr4.retention_rate(module, float(x), 90.0) for x in t], p)
    assert rms <= 0.027
    assert largest <= 0.039
    assert np.polyfit(np.log(t), norm.ppf(p), 2)[::-1] == pytest.approx(ddr4.PROBITS[module], abs=1e-4)
    assert hold_out_probit(np.log(t).tolist(), p.tolist(), degree=2) <= 0.17


def test_one_factor_of_time_describes_50_degrees() -> None:
    """The points at 50 °C took no part in the fit of a, b and c; only the factor 8.0 comes from them."""
    t, p = published("hyhy13", 50)
    covered = t >= 32.0
    rms, largest = decades([ddr4.retention_rate("hyhy13", float(x), 50.0) for x in t[covered]], p[covered])
    assert rms <= 0.035
    assert largest <= 0.06
    assert ddr4.scale_time(32.0, 50.0) == pytest.approx(4.0, rel=1e-12)
    assert ddr4.scale_time(32.0, 90.0) == 32.0


def test_a_stored_1_is_lost_for_good_and_a_0_never() -> None:
    """Errors are nested in time and temperature, and number p10 of the stored ones."""
    memory, region = written("ddr4:interval=64")
    wrong = wrong_bits(memory, region)
    assert within(wrong, region.written)
    assert binomial(popcount(wrong), popcount(region.written), memory.terms[0].p10) > 1e-6
    assert within(wrong_bits(memory.at(interval=16.0), region), wrong)
    assert within(wrong_bits(memory.at(temperature=70.0), region), wrong)
    assert within(wrong, wrong_bits(memory.at(interval=256.0), region))


@pytest.mark.parametrize("spec", ["ddr4:interval=0.064", "ddr4:interval=16,temperature=50", "ddr4:module=axmicr02"])
def test_what_the_law_does_not_cover_is_refused(spec: str) -> None:
    with pytest.raises(MemorySpecError):
        parse_spec(spec).check()


def test_the_coldest_and_shortest_point_is_covered() -> None:
    assert open_memory("ddr4:interval=32,temperature=50").terms == open_memory("ddr4:interval=4,temperature=90").terms
