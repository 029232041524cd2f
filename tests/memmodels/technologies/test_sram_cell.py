"""The six-transistor cell: three causes with the user's constants, and energy from the CACTI table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tests.memmodels.evidence import binomial
from tests.memmodels.technologies.reads import BITS, random_words, within, written, wrong_bits
from weakcell.memmodels import Accesses, Key, Layout, Lifetime, open_memory, parse_spec, technology
from weakcell.memmodels.address import popcount
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import sram_cell
from weakcell.memmodels.technologies.support import table

CELL = "sram-6t:write_mu=0.5,write_s=0.05,hold_mu=0.2,hold_s=0.03,read_mu=0.45,read_s=0.05"


def test_three_causes_add_up() -> None:
    write, hold, read = open_memory(f"{CELL},vdd=0.6,standby_vdd=0.25").terms
    assert (write.lifetime, hold.lifetime, read.lifetime) == (Lifetime.WRITE, Lifetime.DIE, Lifetime.DIE)
    assert write.p01 == pytest.approx(norm.cdf((0.5 - 0.6) / 0.05), rel=1e-12)
    assert hold.p01 == pytest.approx(norm.cdf((0.2 - 0.25) / 0.03) / 2, rel=1e-12)
    assert read.p01 == pytest.approx(norm.cdf((0.45 - 0.6) / 0.05) / 2, rel=1e-12)


def test_a_cell_that_cannot_be_written_keeps_its_value() -> None:
    memory = open_memory("sram-6t:vdd=0.5,write_mu=0.4,write_s=0.05", seed=2)
    layout = Layout("w", BITS, 1)
    first = memory.write(random_words(seed=1), layout, Key())
    region = memory.write(random_words(seed=2), layout, Key(0, 1, 0))
    switched = region.written ^ first.stored
    wrong = wrong_bits(memory, region, write=1)
    assert within(wrong, switched)
    assert binomial(popcount(wrong), popcount(switched), norm.cdf(-2)) > 1e-6


def test_half_of_the_cells_that_cannot_hold_show() -> None:
    memory, region = written("sram-6t:hold_mu=0.2,hold_s=0.05,standby_vdd=0.25")
    assert binomial(popcount(wrong_bits(memory, region)), BITS, norm.cdf(-1) / 2) > 1e-6
    before = np.zeros_like(region.written)
    for standby in (0.35, 0.3, 0.2, 0.1):
        wrong = wrong_bits(memory.at(standby_vdd=standby), region)
        assert within(before, wrong)
        before = wrong


def test_temperature_needs_a_slope() -> None:
    hot = open_memory("sram-6t:hold_mu=0.2,hold_s=0.03,hold_slope=0.0003,temperature=85,standby_vdd=0.25").terms[1]
    assert hot.p01 == pytest.approx(norm.cdf((0.2 + 0.018 - 0.25) / 0.03) / 2, rel=1e-9)
    for spec, said in {"sram-6t": "no constants", "sram-6t:hold_mu=0.2": "without hold_s",
                       "sram-6t:hold_mu=0.2,hold_s=0.03,temperature=85": "without hold_slope"}.items():  # fmt: skip
        with pytest.raises(MemorySpecError) as caught:
            parse_spec(spec).check()
        assert said in str(caught.value)


def test_energy_at_nominal_voltage_is_the_table() -> None:
    tech = technology("sram-6t")
    for row in table("sram_cacti"):
        given = {"vdd": 0.9, "vnom": 0.9, "node": row["node"], "cell": row["cell"], "size": float(row["size"]),
                 "inferences_per_write": 1.0, "time_per_inference": 1.0}  # fmt: skip
        cost = tech.cost(tech.resolve(given), 1, Accesses(1))
        for part in ("read", "write", "leakage"):
            assert cost.parts[part].value == pytest.approx(float(row[part]), rel=1e-9)
            assert cost.parts[part].basis == "computed"
        assert cost.latency.value == pytest.approx(float(row["access"]), rel=1e-9)


def test_energy_over_voltage_and_without_nominal() -> None:
    tech = technology("sram-6t")
    assert tech.cost(tech.resolve({}), 1, Accesses(1)).energy is None
    full, half = (tech.cost(tech.resolve({"vdd": v, "vnom": 1.0, "time_per_inference": 1.0}), 1, Accesses(1)) for v in (1.0, 0.72))
    assert half.parts["read"].value / full.parts["read"].value == pytest.approx(0.72**2)
    assert (full.energy.basis, half.energy.basis) == ("computed", "assumed")
    assert full.parts["leakage"].value / half.parts["leakage"].value == pytest.approx(np.exp(0.28 / sram_cell.LEAKAGE_V0))


def test_the_leakage_slope_is_that_of_the_published_points() -> None:
    """0.178 and 0.184 V per factor e; 0.18 V gives the two reductions within 6 %."""
    for row in table("sram_28nm_leakage"):
        assert float(row["dv"]) / np.log(float(row["leakage"])) == pytest.approx(sram_cell.LEAKAGE_V0, abs=0.004)
        assert np.exp(float(row["dv"]) / sram_cell.LEAKAGE_V0) == pytest.approx(float(row["leakage"]), rel=0.06)


def test_sizes_between_the_table_lie_between() -> None:
    sizes = [8192, 20000, 32768, 100000, 131072, 2097152]
    read = [sram_cell.cacti("22", "lstp", size)["read"] for size in sizes]
    assert read == sorted(read)
