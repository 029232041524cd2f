"""`weakcell characterize --import TABLE`: each adapter on synthetic cells whose law is known, on the raw files, and on damage."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import log_ndtr, ndtri
from scipy.stats import norm
from typer.testing import CliRunner, Result

import weakcell
from weakcell.host.cli import app
from weakcell.host.measurements.adapters import ADAPTERS, import_table
from weakcell.memmodels import open_memory
from weakcell.memmodels.errors import InputError, MemorySpecError, UsageError
from weakcell.memmodels.profile import load as load_profile
from weakcell.memmodels.technologies import rram_relaxation

ROW = 65536


def run(file: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["characterize", "--import", str(file), "--out", str(out), *more])


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def retention_table(path: Path, rng: np.random.Generator, waits: dict[str, float], *, dead: int = 0, zeros: bool = True) -> Path:
    """256 rows; `waits` gives the share of lost ones per column `TEMPERATURE_TIME`."""
    columns = {f"ones_{name}": dead + rng.binomial(ROW - dead, p, 256) for name, p in waits.items()}
    if zeros:
        columns |= {f"zeros_{name}": np.zeros(256, int) for name in waits}
    lines = [f"# a module; failing cells of {ROW} per row", "row," + ",".join(columns)]
    return write(path, lines + [f"{i}," + ",".join(str(c[i]) for c in columns.values()) for i in range(256)])


def share(time: float, temperature: float) -> float:
    """A module of the shape that DDR4 modules have, written down anew: 0.5 eV, knee at 8 s and 85 °C."""
    equivalent = time * np.exp(0.5 / 8.617333e-5 * (1 / 358.15 - 1 / (temperature + 273.15)))
    x = np.log(equivalent)
    return float(norm.cdf(-2.9 + 0.29 * x - (0.9524 - 0.29) * 0.9216 * np.log1p(np.exp(-(x - np.log(8.0)) / 0.9216))))


# --- DRAM retention ----------------------------------------------------------------------------------------------------------


def test_retention_at_two_temperatures_gives_the_law_of_the_cells(tmp_path: Path, rng: np.random.Generator) -> None:
    waits = {f"{temperature}C_{time}s": share(time, temperature) for temperature in (60, 85) for time in (8, 32, 128, 512)}
    file = retention_table(tmp_path / "module.csv", rng, waits)
    done = run(file, tmp_path / "out")
    assert done.exit_code == 0, done.output
    law = load_profile(tmp_path / "out" / "profile.toml").law
    assert law.energy == pytest.approx(0.5, abs=0.02)
    assert (law.reference, law.coldest, law.hottest, law.lost) == (85.0, 60.0, 85.0, "p10")
    memory = open_memory(f"file:{tmp_path / 'out' / 'profile.toml'}:interval=100,temperature=70")
    assert abs(np.log10(memory.terms[0].p10 / share(100, 70))) < 0.03
    assert "Held out: 8 points" in " ".join(done.output.split())


def test_two_waits_predict_the_others(tmp_path: Path, rng: np.random.Generator) -> None:
    file = retention_table(tmp_path / "few.csv", rng, {f"85C_{time}s": share(time, 85) for time in (4, 64)})
    assert run(file, tmp_path / "out").exit_code == 0
    spec = f"file:{tmp_path / 'out' / 'profile.toml'}"
    for time in (16, 1000):
        found = open_memory(f"{spec}:interval={time},extrapolate=yes").terms[0].p10
        assert abs(np.log10(found / share(time, 85))) < 0.1
    with pytest.raises(MemorySpecError, match="extrapolate=yes"):
        open_memory(f"{spec}:interval=1000")


def test_a_dead_lane_is_noticed_and_taken_off(tmp_path: Path, rng: np.random.Generator) -> None:
    file = retention_table(tmp_path / "dead.csv", rng, {f"85C_{time}s": share(time, 85) for time in (4, 64, 1024)}, dead=8192)
    done = run(file, tmp_path / "out")
    assert "8192 of 65536 cells" in " ".join(done.output.split())
    points = pl.read_csv(tmp_path / "out" / "points.csv")
    assert points["cells_p10"].to_list() == [256 * (ROW - 8192)] * 3
    assert points["p10"].to_list() == pytest.approx([share(t, 85) for t in (4, 64, 1024)], rel=0.02)


def test_a_missing_pattern_is_asked_for(tmp_path: Path, rng: np.random.Generator) -> None:
    waits = {f"85C_{time}s": share(time, 85) for time in (4, 64, 1024)}
    done = run(retention_table(tmp_path / "ones.csv", rng, waits, zeros=False), tmp_path / "out")
    assert "p01 is not known" in " ".join(done.output.split())
    assert "p01_share=0" in done.output
    with pytest.raises(MemorySpecError, match="p01_share"):
        open_memory(f"file:{tmp_path / 'out' / 'profile.toml'}:interval=64").terms  # noqa: B018


def test_rows_of_anti_cells_get_their_own_profile(tmp_path: Path, rng: np.random.Generator) -> None:
    times, anti = (4, 64, 1024), np.arange(256) % 128 >= 90
    lost = {t: rng.binomial(ROW, share(t, 85), 256) for t in times}
    names = [f"ones_85C_{t}s" for t in times] + [f"zeros_85C_{t}s" for t in times]
    rows = [[*(0 if anti[i] else lost[t][i] for t in times), *(lost[t][i] if anti[i] else 0 for t in times)] for i in range(256)]
    lines = ["row," + ",".join(names), *(f"{i}," + ",".join(map(str, row)) for i, row in enumerate(rows))]
    file = write(tmp_path / "mixed.csv", lines)
    assert "--about cells=N" in " ".join(run(file, tmp_path / "no").output.split())
    done = run(file, tmp_path / "out", "--about", f"cells={ROW}")
    assert f"{int((~anti).sum())} rows hold true cells and {int(anti.sum())} anti-cells" in " ".join(done.output.split())
    for kind, rate in (("true", "p10"), ("anti", "p01")):
        profile = load_profile(tmp_path / "out" / f"profile-{kind}.toml")
        assert profile.law.lost == rate
        (term,) = profile.terms({"interval": 64.0})
        assert getattr(term, rate) == pytest.approx(share(64, 85), rel=0.05)


@pytest.mark.parametrize("module", ["hisasa00", "sasa29", "hyhy03", "hyhy13", "axmicr02"])
def test_raw_modules_are_read_and_predict_what_was_held_out(module: str, shared: Path, tmp_path: Path) -> None:
    """From 4 and 64 s (or all waits of the odd one) to every other wait, against sums of the raw rows."""
    raw = shared / "device-data" / "raw" / "ddr4-retention" / f"{module}.csv.gz"
    if not raw.exists():
        pytest.skip("the raw rows are not here")
    with gzip.open(raw, "rt") as file:
        comment, *rest = file.read().splitlines()
    rows = list(csv.reader(rest))
    known = [i for i, name in enumerate(rows[0]) if name == "row" or name.endswith(("_90C_4s", "_90C_64s")) or module == "axmicr02"]
    few = write(tmp_path / "few.csv", [comment, *(",".join(row[i] for i in known) for row in rows)])
    assert run(few, tmp_path / "out").exit_code == 0
    kind = "-true" if module == "axmicr02" else ""
    law = load_profile(tmp_path / "out" / f"profile{kind}.toml").law
    table = np.array(rows[1:], int)
    dead, true = (8192 if module == "hisasa00" else 0), table[:, rows[0].index("ones_90C_256s")] > 1000
    for i, name in enumerate(rows[0]):
        if name.startswith("ones_90C_"):
            counted = (table[true, i].sum() - dead * true.sum()) / (true.sum() * (ROW - dead))
            said = log_ndtr(law.probit(float(name[9:-1])))
            assert abs(said - np.log(counted)) / np.log(10) < 0.07, name


# --- conductance -------------------------------------------------------------------------------------------------------------


def test_levels_of_normal_cells(tmp_path: Path, rng: np.random.Generator) -> None:
    """Changes are normal, 9 % of the full scale wide: two bits per cell are misread with Phi(-(100/6) / 9)."""
    start = rng.uniform(0.0, 50.0, 40_000)
    g = start + rng.normal(0.0, 0.09 * 50.0, start.size)
    lines = ["cell,g_0s,g_1s,g_10s", *(f"{i},{a:.4f},{b:.4f},{b:.4f}" for i, (a, b) in enumerate(zip(start, g, strict=True)))]
    done = run(write(tmp_path / "cells.csv", lines), tmp_path / "out", "--about", "g_max=50")
    assert done.exit_code == 0, done.output
    assert "g_10s is the same as g_1s" in done.output
    (term,) = open_memory(f"file:{tmp_path / 'out' / 'profile.toml'}:time=1,bits_per_cell=2").terms
    expected = norm.sf(100 / 6 / 9)
    assert [*term.up[:-1], *term.down[1:]] == pytest.approx([expected] * 6, rel=0.25)
    (narrow,) = open_memory(f"file:{tmp_path / 'out' / 'profile.toml'}:time=3,bits_per_cell=1,low=0.3,high=0.6").terms
    assert narrow.up[0] == pytest.approx(norm.sf(15 / 9), rel=0.25)


@pytest.mark.parametrize("name", ["A_relax", "C_relax", "A_bake", "C_bake"])
def test_raw_resistive_cells_are_read(name: str, shared: Path, tmp_path: Path) -> None:
    raw = shared / "device-data" / "raw" / "rram-relaxation" / f"{name}.csv.gz"
    if not raw.exists():
        pytest.skip("the raw cells are not here")
    found = import_table(raw)
    (fit,) = found.fits
    technology, kind = name.split("_")
    values = (1.0, 1000.0) if kind == "relax" else (100.0, 110.0)
    for value in values:  # the built-in law has the same cells
        at = {"time" if kind == "relax" else "bake": value, "bits_per_cell": "2", "low": 0.0, "high": 1.0, "code": "gray"}
        (ours,) = fit.profile.law.terms(at, "theirs")
        (known,) = rram_relaxation.level_term(rram_relaxation.RRAM_RELAXATION.resolve({"technology": technology, **at}))
        assert abs(np.log10(ours.rate / known.rate)) < 0.05
    worst = max(abs(one.error) for one in fit.held_out if one.point.startswith("half of the cells"))
    assert worst < 0.4


# --- power-up ----------------------------------------------------------------------------------------------------------------


def test_power_up_values_over_temperature(tmp_path: Path, rng: np.random.Generator) -> None:
    """Preferences are normal and move with the temperature; the share of ones is that of the cells, and nested."""
    preference, temperatures = rng.normal(0.3, 1.0, 20_000), (-20, 0, 20, 40, 60)
    maps = np.stack([preference > 0.005 * t for t in temperatures]).astype(int)
    lines = ["address,bit," + ",".join(f"v_{t}C" for t in temperatures)]
    lines += [f"{i // 8},{i % 8}," + ",".join(map(str, maps[:, i])) for i in range(maps.shape[1])]
    done = run(write(tmp_path / "map.csv", lines), tmp_path / "out")
    text = " ".join(done.output.split())
    assert "100 % of the cells change at most once" in text
    assert "one read or a majority of unknown reads" in text
    (term,) = open_memory(f"file:{tmp_path / 'out' / 'profile.toml'}:temperature=60").terms
    assert term.p01 == pytest.approx(maps[-1].mean())
    assert term.p01 + term.p10 == pytest.approx(1.0)
    held = pl.read_csv(tmp_path / "out" / "held_out.csv")
    assert held["error_decades"].abs().max() < 0.02


# --- word logs ---------------------------------------------------------------------------------------------------------------


def test_upsets_are_counted_and_pairs_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    """2^20 words of 8 bits, all 0x55 in file A with pairs at address XOR 0x100; all zeros in B; C is a copy of B."""
    lines, first = ["file,address,written,read"], rng.choice(1 << 19, 60, replace=False)
    for address in first:
        lines += [f"A,{address},0x55,0x54", f"A,{address ^ 0x100},0x55,0x54"]
    lines += [f"{name},{address},0x00,0x03" for name in "BC" for address in (5, 90)]
    file = write(tmp_path / "log.csv", lines)
    done = run(file, tmp_path / "out", "--about", "words=1048576,bits=8")
    text = " ".join(done.output.split())
    assert done.exit_code == 0, text
    assert "XOR 0x800" in text
    assert "C is the same as B" in text
    assert "B: 2 of 2 wrong words have up to 2 wrong bits" in text
    assert "B: only 0 was written, so p10 is not known" in text
    points = {row["file"]: row for row in pl.read_csv(tmp_path / "out" / "points.csv").iter_rows(named=True)}
    assert points["A"]["p10"] == pytest.approx(120 / (4 << 20))
    assert points["A"]["flips_p01"] == 0
    assert points["B"]["p01"] == pytest.approx(4 / (8 << 20))
    assert points["B"]["p10"] is None


@pytest.mark.parametrize("number", range(1, 8))
def test_raw_logs_have_the_counts_of_their_summary(number: int, shared: Path) -> None:
    folder = shared / "device-data" / "raw" / "sram-upsets"
    if not folder.exists():
        pytest.skip("the raw logs are not here")
    with (folder / "summary.csv").open() as file:
        rows = [row for row in csv.DictReader(line for line in file if not line.startswith("#")) if row["example"] == str(number)]
    found = import_table(folder / f"example{number}.csv.gz")
    by_file = {point.conditions["file"]: point for point in found.points}
    assert len(rows) == len(by_file)
    for row in rows:
        point = by_file[row["file"]]
        flips = [count.flips if count else 0 for count in (point.p01, point.p10)]
        assert flips == [int(row["flips_0to1"]), int(row["flips_1to0"])]
    if number == 1:
        assert any("XOR 0x800 (13 pairs), 0x80008 (12 pairs), 0x80009 (7 pairs)" in text for text in found.noticed)
    if number == 5:
        assert any("difference 3231" in text for text in found.noticed)


# --- long tables -------------------------------------------------------------------------------------------------------------


def test_reads_over_voltage_give_the_law_of_the_cells(tmp_path: Path, rng: np.random.Generator) -> None:
    thresholds, volts = rng.normal(0.5, 0.04, 20_000), (0.6, 0.58, 0.56, 0.54)
    lines = ["cell,written,read,vdd"]
    lines += [f"{i},1,{int(t < v)},{v}" for v in volts for i, t in enumerate(thresholds)]
    done = run(write(tmp_path / "long.csv", lines), tmp_path / "out")
    text = " ".join(done.output.split())
    assert done.exit_code == 0, text
    assert "each cell was read once" in text
    law = load_profile(tmp_path / "out" / "profile.toml").law
    assert (law.mu, law.s) == pytest.approx((0.5, 0.04), abs=4e-3)
    assert law.unmeasured == "p01"
    assert "Held out: 4 points" in text


def test_counts_over_time_are_a_law_of_retention(tmp_path: Path, shared: Path) -> None:
    lines = ["written,interval_s,temp_c,flips,cells"]
    lines += [f"{v},{t},85,{round(share(t, 85) * 1e7) * v},10000000" for t in (4, 32, 256) for v in (1, 0)]
    assert run(write(tmp_path / "c.csv", lines), tmp_path / "out").exit_code == 0
    (term,) = load_profile(tmp_path / "out" / "profile.toml").terms({"interval": 64.0})
    assert abs(np.log10(term.p10 / share(64, 85))) < 0.03


def test_points_without_a_law_keep_their_rates(tmp_path: Path) -> None:
    lines = ["written,mode,flips,cells", "1,fast,30,1000", "0,fast,10,1000", "1,slow,0,1000", "0,slow,0,1000"]
    done = run(write(tmp_path / "c.csv", lines), tmp_path / "out", "--json")
    events = [json.loads(line) for line in done.output.splitlines()]
    assert [event["p10"] for event in events if event["event"] == "point"] == [0.03, 0.0]
    (term,) = open_memory(f"file:{tmp_path / 'out' / 'profile.toml'}:mode=fast").terms
    assert (term.p01, term.p10) == (0.01, 0.03)
    about = json.loads((tmp_path / "out" / "import.json").read_text())
    assert any("no cell was wrong at mode=slow" in text for text in about["noticed"])


# --- what does not fit -------------------------------------------------------------------------------------------------------

DAMAGED = {
    "no known column": ("a,b\n1,2\n", "no adapter knows them"),
    "no row": ("row,ones_90C_4s\n", "0 rows"),
    "a ragged row": ("row,ones_90C_4s\n1\n", "1 cells"),
    "a word for a count": ("# of 8 per row\nrow,ones_90C_4s\n1,x\n", "'x'"),
    "a negative count": ("# of 8 per row\nrow,ones_90C_4s\n1,-1\n", "whole numbers from 0"),
    "more failing cells than cells": ("# of 8 per row\nrow,ones_90C_4s\n1,9\n", "failing cells, and 8 in all"),
    "one wait": ("# of 65536 per row\nrow,ones_90C_4s\n1,100\n2,99\n", "two are needed"),
    "an address beyond the memory": ("# 4 words of 8 bits\naddress,written,read\n9,0,1\n", "beyond 4 words"),
    "no word": ("# 4 words of 8 bits\naddress,written,read\n1,0,zz\n", "'zz'"),
    "a value that is no bit": ("cell,written,read,vdd\n1,0,2,0.5\n", "'2'"),
    "flips beyond cells": ("written,flips,cells\n1,3,2\n", "3 flips of 2 cells"),
    "temperature and voltage": ("address,bit,v_1C,v_2V\n0,0,1,1\n", "over temperature and over voltage"),
    "no full scale": ("cell,g_0s,g_1s\n0,1,1\n", "--about g_max"),
    "too few cells": ("# g_max 2\ncell,g_0s,g_1s\n0,1,1\n", "fewer than"),
    "not text": ("\x00", "0 rows"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_table_is_refused_in_one_paragraph(name: str, tmp_path: Path) -> None:
    text, said = DAMAGED[name]
    file = tmp_path / "bad.csv"
    file.write_text(text)
    done = run(file, tmp_path / "out")
    assert done.exit_code == 3, done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weakcell.host.measurements.table.SMALL_BYTES", 1 << 16)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"0" * (1 << 20)))
    with pytest.raises(InputError, match="unpacks to more than"):
        import_table(tmp_path / "bomb.csv.gz")


def test_unknown_adapters_and_facts_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "c.csv", ["written,flips,cells", "1,3,20", "0,3,20"])
    with pytest.raises(UsageError, match="dram-retention"):
        import_table(file, "nonsense")
    with pytest.raises(UsageError, match="it takes nothing"):
        import_table(file, None, {"cells": 3.0})
    with pytest.raises(InputError, match="Give the columns of power-up"):
        import_table(file, "power-up")
    assert run(file, tmp_path / "out", "--about", "cells").exit_code == 2


def test_a_table_is_not_taken_for_read_backs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="characterize --import"):
        weakcell.characterize(tmp_path / "out", readbacks=write(tmp_path / "c.csv", ["a", "1"]))


def test_every_adapter_is_documented() -> None:
    text = (Path(__file__).parents[2] / "host" / "measurements" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in ADAPTERS)


def test_probit_of_a_share_is_scipys() -> None:
    """The synthetic module of this file has the shape that it claims."""
    assert ndtri(share(1e6, 85)) == pytest.approx(-2.9 + 0.29 * np.log(1e6), abs=1e-4)
