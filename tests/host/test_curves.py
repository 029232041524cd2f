"""Pictures of the laws beside their published points, and how far the laws miss points that they did not see."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom, norm
from typer.testing import CliRunner

import weakcell
from tests.host.pictures import MATPLOTLIB, MOST_CHANGED, compare, reference
from weakcell.host.analysis.technology_curve import sample_curve, suggest_sweep
from weakcell.host.cli import app
from weakcell.host.report import technology_curves
from weakcell.host.report.chart_model import MOST_SERIES
from weakcell.host.report.technology_curves import collect_panels
from weakcell.host.study.sweep_values import parse_sweep
from weakcell.memmodels import names, technology
from weakcell.memmodels.curves import hold_out_probit, hold_out_tail, rms_decades
from weakcell.memmodels.error_model.terms import ErrorTerm, Lifetime
from weakcell.memmodels.profile import OperatingPoint, Profile
from weakcell.memmodels.technologies.dram import hold_out_retention
from weakcell.memmodels.technologies.sttram import hold_out_stability
from weakcell.memmodels.technologies.support import table


def test_pictures_of_the_laws(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["memories", "--plots", str(tmp_path / "laws")])
    assert done.exit_code == 0
    pictures = {path.name for path in (tmp_path / "laws").iterdir()}
    assert pictures >= {"sram.png", "dram.png", "rram.png", "sttram.png", "fefet.png"}
    assert pictures == {Path(line).name for line in done.stdout.split()}
    if mpl.__version__.startswith(f"{MATPLOTLIB}."):  # they look like the references, which people have looked at
        drawn = {path.stem: Image.open(path) for path in (tmp_path / "laws").iterdir()}
        shares = {name: compare(picture, reference(f"laws-{name}")) for name, picture in drawn.items()}
        assert max(shares.values()) < MOST_CHANGED, shares


def test_each_panel_of_the_laws_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file per panel and format; legends lie below the axes, and no two curves with points look alike."""
    sram = {"sram": collect_panels()["sram"], "ddr4": collect_panels()["ddr4"]}
    monkeypatch.setattr(technology_curves, "collect_panels", lambda: sram)
    done = CliRunner().invoke(app, ["memories", "--plots", str(tmp_path), "--separate", "--format", "svg,pdf"])
    assert done.exit_code == 0, done.output
    panels = sum(map(len, sram.values()))
    assert len({path.stem for path in tmp_path.iterdir()}) == panels
    assert len(list(tmp_path.iterdir())) == 2 * panels
    figure = technology_curves._plot_figure(sram["ddr4"])
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend, plot = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert legend.y1 < plot.y0
        looks = [(line.get_color(), line.get_marker()) for line in axes.lines if line.get_marker() != "None"]
        assert len(set(looks)) == len(looks)
        assert 4 < len(looks) <= MOST_SERIES
    assert CliRunner().invoke(app, ["memories", "--plots", str(tmp_path), "--format", "gif"]).exit_code == 2


def test_every_panel_of_every_technology_is_plotted() -> None:
    """No curve is lost where technologies share a panel, and every law can be evaluated where it is plotted."""
    published = [panel for name in names() if (curve := technology(name).published_curve) for panel in curve()]
    plotted = [panel for panels in collect_panels().values() for panel in panels]
    assert sorted(c.label or "" for p in published for c in p.curves) == sorted(c.label or "" for p in plotted for c in p.curves)
    assert all(c.points or c.law_x for p in plotted for c in p.curves)
    assert all(0.0 <= c.law(x) < np.inf for p in plotted for c in p.curves if c.law for x in (*c.law_x[:1], *c.law_x[-1:]))


def test_rms_is_in_decades() -> None:
    assert rms_decades([(1.0, 0.1), (2.0, 10.0)], lambda _: 1.0) == pytest.approx(1.0)
    assert rms_decades([(1.0, 0.01), (2.0, 1.0)], lambda _: 1.0) == pytest.approx(2.0**0.5)


def test_held_out_ends_are_missed_by_what_the_trust_page_says() -> None:
    """On curves that are the law itself the error is 0; on published ones, it is that of memmodels/TRUST.md."""
    x = [0.5, 0.6, 0.7, 0.8]
    assert hold_out_probit(x, norm.cdf((0.4 - np.array(x)) / 0.1)) == pytest.approx(0.0, abs=1e-9)
    assert hold_out_tail(x, 0.5 * norm.cdf((0.6 - np.array(x)) / 0.05), 0.5, (0.5, 0.1)) == pytest.approx(0.0, abs=1e-3)
    chips = [(float(row["v_over_vmin"]), float(row["ber"])) for row in table("sram_14nm")]
    assert hold_out_probit(*zip(*chips, strict=True)) == pytest.approx(0.37, abs=0.005)
    cells = np.array([[float(row[key]) for key in ("interval", "temperature", "vdd", "rate")] for row in table("dram_retention")])
    assert hold_out_retention(cells[cells[:, 3] > 0]) == pytest.approx(0.98, abs=0.005)
    writes = np.array([[float(row[key]) for key in ("delta", "current", "tau", "rate")] for row in table("stt_write")])
    assert hold_out_stability(writes) == pytest.approx(0.47, abs=0.005)
    lines = [
        (float(row["vdd"]), float(row["share"])) for row in table("dram_lines") if row["vendor"] == "B" and float(row["share"])
    ]
    assert hold_out_tail(*zip(*lines, strict=True), 1.0, (1.1, 0.03)) == pytest.approx(0.68, abs=0.005)


@pytest.mark.parametrize("name", [name for name in names() if sample_curve(technology(name))])
def test_the_sweep_that_a_single_point_suggests_changes_the_errors(name: str) -> None:
    kind = technology(name)
    sweep = parse_sweep(suggest_sweep(kind))
    rates = [sum(term.rate for term in kind.terms(kind.resolve({sweep.key: value}))) for value in sweep.values]
    assert 4 <= len(rates) <= 16
    assert max(rates) > 10 * min(rates)


def test_a_profile_without_a_law_suggests_what_was_measured() -> None:
    points = tuple(
        OperatingPoint({"vdd": vdd}, (ErrorTerm("cells", Lifetime.DIE, rate, rate),))
        for vdd, rate in ((1.1, 1e-6), (0.6, 1e-3), (0.55, 1e-2))
    )
    kind = Profile("board", points=points).technology()
    assert suggest_sweep(kind) == "vdd=0.55,0.6,1.1"
    assert [(point.value, point.p01) for point in sample_curve(kind)] == [(0.55, 1e-2), (0.6, 1e-3), (1.1, 1e-6)]


def test_the_usual_sweep_of_rram_flips_as_many_bits_as_its_law_says() -> None:
    """P = Phi(-d / (sigma_low + sigma_high)) with the published polynomials of sigma, in powers of g / 40 uS."""
    (after_1_s,) = (row for row in table("rram_relaxation") if float(row["time"]) == 1.0)
    sigma = np.polynomial.Polynomial([float(after_1_s[f"c{k}"]) for k in range(5)], domain=[0, 40], window=[0, 1])
    result = weakcell.emulate("digits-bnn", memory="rram", sweep="g_high=5:11:3", trials=2, images=10)
    bits = 2 * 59_616
    for g_high, share in result.summary.select("sweep_value", "flip_rate").iter_rows():
        low, high = binom.interval(1 - 1e-9, bits, norm.cdf(-(g_high - 1) / (sigma(g_high) + sigma(1.0))))
        assert low <= share * bits <= high
