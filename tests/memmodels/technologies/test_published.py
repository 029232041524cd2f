"""The project's own data files against the shared data they were retyped from, and rules that hold for every technology."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from weakcell.memmodels import Accesses, names, technology
from weakcell.memmodels.technologies.support import PUBLISHED, table

GIVEN = {
    "uniform": {"ber": 0.1},
    "eden": {"p": 0.1, "f": 0.5},
    "sram-6t": {"hold_mu": 0.2, "hold_s": 0.03, "vnom": 0.8},
    "sttram": {"tau": 5.0},
    "fefet": {"domains": 100.0},
}
JOULES = ("sram-6t", "dram", "rram", "rram-mlc", "sttram", "fefet")

RETYPED = {
    "sram_28nm_kc705b_columns": ("sram_28nm_fpga_bram_kc705b_spatial", {"vdd": "vccbram_V", "faults": "faults_unique",
                                 "blocks": "blocks_with_fault", "pairs": "pairs_with_fault", "fano": "fano_pair"}),
    "sram_14nm_operating_points": ("sram_14nm_ibm_operating_points", {"density": "p"}),
    "sram_cacti": ("sram_energy_cacti", {"node": "tech_nm", "size": "size_bytes", "access": "t_ns", "read": "Erd_pJ_per_bit",
                   "write": "Ewr_pJ_per_bit", "leakage": "leak_pW_per_bit"}),
    "dram_trcd": ("dram_ddr3_latvar_trcd", {"trcd": "tRCD_ns", "p01": "p01_median", "p10": "p10_median", "p10_mean": "p10_mean",
                  "low": "ber_min", "high": "ber_max", "modules": "n_dimms"}),
    "dram_trp": ("dram_ddr3_latvar_trp", {"trp": "tRP_ns", "p01": "p01_median", "p10": "p10_median"}),
    "dram_lines": ("dram_ddr3l_voltron_cacheline_errors", {"vdd": "vdd_V", "share": "mean", "low": "min", "high": "max"}),
    "dram_retention": ("dram_ddr3l_retention_voltron", {"temperature": "T_C", "vdd": "vdd_V", "cells": "mean_bits", "rate": "ber"}),
    "rram_levels": ("rram_mlc_nvmexplorer_levels", {"bits": "bits_per_cell", "level": "level", "mean": "mean", "sigma": "sigma",
                    "up": "p_up", "down": "p_down"}),
    "stt_write": ("stt_wer_fokker_planck", {"delta": "delta", "current": "i", "tau": "tau", "rate": "wer_fpe"}),
    "fefet_domains": ("fefet_slc_domains", {key: key for key in ("domains", "a0", "loc0", "scale0", "a1", "loc1", "p01")}),
    "fefet_levels": ("fefet_mlc_levels", {"bits": "bits_per_cell", "level": "level", "a": "a", "loc": "loc_A", "scale": "scale_A",
                     "up": "p_up", "down": "p_down"}),
    "array_energy_22nm": ("array_energy_22nm_nvmexplorer", {"latency": "t_read_ns", "write_latency": "t_write_ns",
                          "read": "e_read_pJ_per_bit", "write": "e_write_pJ_per_bit", "leakage": "leak_pW_per_bit"}),
}  # fmt: skip


@pytest.mark.parametrize("name", RETYPED)
def test_our_numbers_are_those_of_the_shared_data(name: str, shared: Path) -> None:
    source, columns = RETYPED[name]
    lines = (shared / "device-data" / f"{source}.csv").read_text().splitlines()
    theirs = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    ours = table(name)
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        for key, other in columns.items():
            assert float(mine[key]) == float(its[other])


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.csv")), ids=lambda path: path.stem)
def test_every_file_names_source_status_and_units(path: Path) -> None:
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for word in ("# source:", "# status:", "# units:"):
        assert any(line.startswith(word) for line in header)
    assert "RECALLED" not in path.read_text(encoding="utf-8").upper()


def test_no_recalled_energy_came_along(shared: Path) -> None:
    assert {row["type"] for row in table("dram_energy")} == {"LPDDR4", "LPDDR", "DDR3", "GDDR5", "HBM2", "HBM", "DDRx"}


@pytest.mark.parametrize("name", JOULES)
def test_write_energy_and_leakage_wait_for_the_user(name: str) -> None:
    """No share of a write without inferences_per_write, no leakage without time_per_inference; parts add up, all in pJ."""
    tech = technology(name)
    given = GIVEN.get(name, {})
    assert not any(c.default for c in tech.conditions if c.name in ("inferences_per_write", "time_per_inference"))
    bare = tech.cost(tech.resolve(given), 1000, Accesses(3))
    assert set(bare.parts) == {"read"}
    more = {"inferences_per_write": 100.0, "time_per_inference": 1e-3, **({"refresh_power": 1.0} if name == "dram" else {})}
    full = tech.cost(tech.resolve({**given, **more}), 1000, Accesses(3))
    assert set(full.parts) == {"read", "write", "leakage"}
    assert {part.unit for part in full.parts.values()} | {full.energy.unit} == {"pJ"}
    assert full.energy.value == pytest.approx(sum(part.value for part in full.parts.values()))
    assert full.energy.value > bare.energy.value > 0
    assert full.latency.unit == "ns"


@pytest.mark.parametrize("name", names())
def test_every_technology_can_be_read_about(name: str) -> None:
    """Terms and a curve exist at a point, every number has a basis, and what was only recalled has no default."""
    tech = technology(name)
    terms = tech.terms(tech.resolve(GIVEN.get(name, {})))
    assert terms
    assert all(0 <= term.rate <= 1 for term in terms)
    assert tech.constants or name in ("uniform", "eden")
    recalled = {"tau_d", "p_in_line", "window_slope", "wear", "hold_mu", "read_mu", "write_mu", "refresh_power", "share"}
    assert not any(c.default is not None for c in tech.conditions if c.name in recalled)


@pytest.mark.parametrize("name", names())
def test_every_technology_is_in_the_tables_of_the_room(name: str) -> None:
    """README.md lists it with its knobs; TRUST.md says how far to trust it, unless it is a definition without a source."""
    room = PUBLISHED.parent
    assert f"`{name}`" in (room / "README.md").read_text(encoding="utf-8")
    family = name.rsplit("-", 1)[0] + "-*"
    trust = (room / "TRUST.md").read_text(encoding="utf-8")
    assert f"`{name}`" in trust or f"`{family}`" in trust or f"`{name}:" in trust


@pytest.mark.parametrize("name", names())
def test_every_published_law_hands_out_its_points(name: str) -> None:
    """A technology that calls its law published compares it with the points; `weakcell memories --plots` then shows them."""
    tech = technology(name)
    assert tech.published_curve or tech.basis != "published"
    for panel in tech.published_curve() if tech.published_curve else ():
        assert panel.title
        assert panel.curves
