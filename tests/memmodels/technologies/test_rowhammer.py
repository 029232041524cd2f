"""Read disturbance against the published counts: the law, held-out points, rows, polarity, and the valid range."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.special import log_ndtr, ndtri
from scipy.stats import multivariate_normal, norm

from tests.memmodels.evidence import Family, binomial
from tests.memmodels.technologies.reads import written, wrong_bits
from weakcell.memmodels import parse_spec
from weakcell.memmodels.errors import MemorySpecError
from weakcell.memmodels.technologies import rowhammer
from weakcell.memmodels.technologies.support import table

MODULES = ("A23", "B11", "C19")
ROW_WORDS = 65536 // 64
ROWS = {row["module"]: row for row in table("ddr3_disturbance_rows")}


def counts(module: str, spacing: str) -> tuple[np.ndarray, np.ndarray]:
    """(activations, rate) of the points of a figure with 20 errors or more."""
    figure = {"tight": "4", "even": "5"}[spacing]
    rows = [row for row in table("ddr3_disturbance") if row["module"] == module and row["figure"] == figure]
    data = np.array([[float(row["interval"]), float(row["apart"]), int(row["errors"]), int(row["cells"])] for row in rows])
    data = data[(data[:, 2] >= 20) & ((data[:, 1] >= 70) | (spacing == "tight"))]
    n, p = (data[:, 0] * 1e6 - 8192 * 160.0) / data[:, 1], data[:, 2] / data[:, 3]
    order = np.argsort(n)
    return n[order], p[order]


def test_the_cells_are_those_of_one_bank() -> None:
    """The sum over active rows (figure 7) is the count of the same test in figure 4, within 2.5 %."""
    for module in MODULES:
        same = [r for r in table("ddr3_disturbance") if (r["module"], r["figure"], r["interval"]) == (module, "4", "63.898")]
        assert int(ROWS[module]["flips"]) == pytest.approx(int(same[0]["errors"]), rel=0.025)
        assert int(same[0]["cells"]) == 2 * int(ROWS[module]["rows"]) * 65536
    near = {module: int(row["next"]) / int(row["all"]) for module, row in ROWS.items()}
    assert near == pytest.approx({"A23": 0.9975, "B11": 0.6937, "C19": 0.9994}, abs=1e-4)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("spacing", "held_out"), [("even", 0.054), ("tight", 0.039)])
def test_the_law_is_the_published_curve(module: str, spacing: str, held_out: float) -> None:
    n, p = counts(module, spacing)
    assert (np.diff(p) > 0).all()
    assert [rowhammer.flipped_share(module, at, spacing) for at in n] == pytest.approx(p, rel=1e-9)
    errors = []
    for i in range(1, n.size - 1):
        kept = np.arange(n.size) != i
        said = log_ndtr(PchipInterpolator(np.log(n[kept]), ndtri(p[kept]))(np.log(n[i])))
        errors.append(abs(said - np.log(p[i])) / np.log(10))
    assert max(errors) < held_out


@pytest.mark.parametrize("module", MODULES)
def test_rows_share_what_the_counts_per_active_row_show(module: str) -> None:
    """P(two cells of a row flip) / p^2 - 1 is the variance beyond chance of the counts per active row."""
    rows, flips, squares = (int(ROWS[module][key]) for key in ("rows", "flips", "squares"))
    mean = flips / rows
    variance = squares / rows - mean**2
    excess = (variance - mean) / mean**2
    p = flips / (2 * rows * 65536)
    z, share = norm.ppf(p), rowhammer.SHARES[module]
    both = multivariate_normal([0, 0], [[1, share], [share, 1]], abseps=1e-14, releps=1e-9).cdf([z, z])
    assert both / p**2 - 1 == pytest.approx(excess, rel=0.01)


def test_drawn_cells_have_the_rate_and_the_rows_of_the_source() -> None:
    count, family = 512, Family()
    spec = "rowhammer:module=A23,spacing=tight,activations=1137943,polarity=true"
    memory, region = written(spec, np.full(count * ROW_WORDS, 2**64 - 1, np.uint64))
    flips = np.bitwise_count(wrong_bits(memory, region)).reshape(count, -1).sum(axis=1)
    row = {key: int(value) for key, value in ROWS["A23"].items() if key != "module"}
    mean = row["flips"] / row["rows"] / 2
    excess = (row["squares"] / row["rows"] - 4 * mean**2 - 2 * mean) / (4 * mean**2)
    assert flips.mean() == pytest.approx(mean, rel=0.1)  # four standard errors, and the 1.2 % between the figures
    assert flips.var() / flips.mean() == pytest.approx(1 + mean * excess, rel=0.35)
    for activations in (300_000, 600_000):
        fewer, same = written(spec.replace("1137943", str(activations)), np.full(64 * ROW_WORDS, 2**64 - 1, np.uint64))
        assert not (wrong_bits(fewer, same) & ~wrong_bits(memory, region)[: 64 * ROW_WORDS]).any()
    spec = "rowhammer:module=B11,spacing=tight,activations=2.2e6,polarity=anti,rows=0.25"
    memory, region = written(spec, np.zeros(count * ROW_WORDS, np.uint64))
    flips = np.bitwise_count(wrong_bits(memory, region)).reshape(count, -1).sum(axis=1)
    hit = int((flips > 0).sum())
    family.add("rows", binomial(hit, count, 0.25))
    family.add("cells of these rows", binomial(int(flips.sum()), hit * 65536, rowhammer.flipped_share("B11", 2.2e6, "tight")))
    family.judge()


def test_rows_of_true_cells_and_of_anti_cells_lose_one_value_each() -> None:
    spec, family = "rowhammer:module=B11,spacing=tight,activations=2.2e6", Family()
    wrong = []
    for stored in (0, 2**64 - 1):
        memory, region = written(spec, np.full(256 * ROW_WORDS, stored, np.uint64))
        wrong.append(np.bitwise_count(wrong_bits(memory, region)).reshape(256, -1).sum(axis=1) > 0)
    assert (wrong[0] ^ wrong[1]).all()  # 111 cells of a row flip on average
    family.add("anti-cells", binomial(int(wrong[0].sum()), 256, 0.5))
    family.judge()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rowhammer:spacing=even", "activations=1.1e+06 .* 2.443e+05 to 8.941e+05"),
        ("rowhammer:module=B11,activations=3e5", "3.336e+05"),
        ("rowhammer:module=C19,spacing=even,activations=3e5", "4.172e+05"),
        ("rowhammer:activations=2.1e5", "244300"),
        ("rowhammer:module=D1", "one of A23, B11, C19"),
        ("rowhammer:rows=0", "1e-06"),
    ],
)
def test_what_was_not_measured_is_refused(spec: str, said: str) -> None:
    with pytest.raises(MemorySpecError, match=said.replace("+", r"\+")):
        parse_spec(spec).check()
