"""Pictures of the laws beside their published points, and how far the laws miss points that they did not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from weakcell.host.cli import app
from weakcell.host.report import held_out
from weakcell.host.report.technology_curves import decades
from weakcell.memmodels.technologies.support import table


def test_pictures_of_the_laws(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["memories", "--plots", str(tmp_path / "laws")])
    assert done.exit_code == 0
    assert decades([(1.0, 0.1), (2.0, 10.0)], lambda _: 1.0) == pytest.approx(1.0)
    assert decades([(1.0, 0.01), (2.0, 1.0)], lambda _: 1.0) == pytest.approx(2.0**0.5)
    names = {"sram.png", "dram.png", "rram.png", "sttram.png", "fefet.png"}
    assert {path.name for path in (tmp_path / "laws").iterdir()} == names == {Path(line).name for line in done.stdout.split()}


def test_held_out_ends_are_missed_by_what_the_trust_page_says() -> None:
    """On curves that are the law itself nothing is missed; on published ones, the figures of memmodels/TRUST.md."""
    x = [0.5, 0.6, 0.7, 0.8]
    assert held_out.of_probits(x, norm.cdf((0.4 - np.array(x)) / 0.1)) == pytest.approx(0.0, abs=1e-9)
    assert held_out.of_tails(x, 0.5 * norm.cdf((0.6 - np.array(x)) / 0.05), 0.5, (0.5, 0.1)) == pytest.approx(0.0, abs=1e-3)
    chips = [(float(row["v_over_vmin"]), float(row["ber"])) for row in table("sram_14nm")]
    assert held_out.of_probits(*zip(*chips, strict=True)) == pytest.approx(0.37, abs=0.005)
    cells = [[float(row[key]) for key in ("interval", "temperature", "vdd", "rate")] for row in table("dram_retention")]
    assert held_out.of_retention([row for row in cells if row[3] > 0]) == pytest.approx(0.98, abs=0.005)
    writes = [[float(row[key]) for key in ("delta", "current", "tau", "rate")] for row in table("stt_write")]
    assert held_out.of_write_errors(writes) == pytest.approx(0.47, abs=0.005)
    lines = [
        (float(row["vdd"]), float(row["share"])) for row in table("dram_lines") if row["vendor"] == "B" and float(row["share"])
    ]
    assert held_out.of_tails(*zip(*lines, strict=True), 1.0, (1.1, 0.03)) == pytest.approx(0.68, abs=0.005)
