"""The fit against simulated truth: structures, constants and their intervals, P apart from F, laws, and the integrals below it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from tests.memmodels.memories import put
from tests.memmodels.test_catalogue import one_paragraph
from weakcell.memmodels import ErrorTerm, Key, Layout, Lifetime, open_memory
from weakcell.memmodels.address import popcount
from weakcell.memmodels.error_model.structure import Bank, Lines, find_groups
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.fitting.__main__ import main
from weakcell.memmodels.fitting.counts import GroupCounts, ReadBack, count_evidence, group_numbers
from weakcell.memmodels.fitting.coverage import TRUTHS, Truth, count_flips, find_covered, measure_coverage, simulate
from weakcell.memmodels.fitting.fit import extract_readbacks, fit
from weakcell.memmodels.fitting.likelihood import cell_log_likelihood, group_log_likelihood, line_log_likelihood, logit
from weakcell.memmodels.fitting.models import (
    candidates,
    clopper_pearson,
    estimate_failure_probability,
)
from weakcell.memmodels.fitting.rate_intervals import bootstrap_rate
from weakcell.memmodels.fitting.voltage_law import LawCounts, law_log_likelihood
from weakcell.memmodels.profile import load as load_profile
from weakcell.memmodels.recording import load, record
from weakcell.memmodels.technologies.dram import bad_lines

DIES = 5


# --- coverage, in short (in full: python -m weakcell.memmodels.fitting --coverage --dies 200) ---


@pytest.fixture(scope="module", params=TRUTHS)
def fitted(request: pytest.FixtureRequest) -> tuple[Truth, list[dict[str, bool]], list[str], int]:
    """A few dies of each truth, fitted: intervals that held, structures chosen, fewest flips."""
    truth, held, chosen, flips = TRUTHS[request.param], [], [], 1 << 60
    for die in range(1000, 1000 + DIES):
        readbacks = simulate(truth, die)
        found = fit(readbacks, truth.bank, "vdd" if truth.law else None, unit="V")
        held.append(find_covered(found, truth))
        chosen.append(found.best.structure)
        flips = min(flips, count_flips(readbacks))
    return truth, held, chosen, flips


def test_intervals_hold_the_truth(fitted: tuple[Truth, list[dict[str, bool]], list[str], int]) -> None:
    """So few dies can only tell 0.95 from something much worse."""
    truth, held, _, flips = fitted
    assert flips >= 500
    for name in truth.constants:
        assert sum(one[name] for one in held) >= DIES - 3, name


def test_the_true_structure_is_chosen(fitted: tuple[Truth, list[dict[str, bool]], list[str], int]) -> None:
    truth, _, chosen, _ = fitted
    assert chosen.count(truth.structure) >= DIES - 1


def test_the_long_experiment_counts_what_it_should() -> None:
    tally = measure_coverage(TRUTHS["uniform, one read"], 3)
    assert (tally.dies, tally.recognised) == (3, 3)
    assert tally.bounds["p"] < tally.covered["p"] / 3


# --- likelihoods -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.42, 0.9, 0.99])
@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.1, 0.4])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_group_integrals_are_exact(share: float, rate: float, scale: float) -> None:
    """Against adaptive quadrature around the peak, from no errors at all to half of the cells, as far as 5 sigma."""
    n = 1024
    z = stats.norm.ppf(scale * rate)
    for k in (0, 1, 7, 100, 500):
        one = [np.array([value]) for value in (0, 0, n, k, 1)]

        def integrand(x: float, k: int = k) -> float:
            g = stats.norm.logcdf((z + math.sqrt(share) * x) / math.sqrt(1 - share)) + math.log(0.9 / scale)
            return float(k * g + (n - k) * np.log1p(-np.exp(g)) + stats.norm.logpdf(x))

        x = np.linspace(-8.5, 8.5, 851)
        values = np.array([integrand(each) for each in x])
        peak = float(x[values.argmax()])
        if abs(peak) > 5.0:
            continue
        width = [peak + d for d in (-8, -1, -0.3, -0.1, -0.03, 0.03, 0.1, 0.3, 1, 8)]
        top = values.max()
        area, _ = integrate.quad(
            lambda each, f=integrand, top=top: math.exp(f(each) - top),
            -8.5,
            8.5,
            limit=400,
            points=[p for p in width if abs(p) < 8.5],
        )
        expected = top + math.log(area)
        assert group_log_likelihood(GroupCounts(*one), 0.0, rate, share, 0.9, scale) == pytest.approx(expected, rel=1e-7, abs=1e-6)


def test_groups_without_a_share_are_independent_cells() -> None:
    counts = GroupCounts(np.array([30, 10]), np.array([3, 0]), np.array([20, 40]), np.array([1, 5]), np.array([2, 3]))
    together = group_log_likelihood(counts, 0.05, 0.1, 1e-12, 1.0, 2.0)
    plain = 6 * math.log(0.05) + (54 + 30) * math.log(0.95) + 17 * math.log(0.1) + (38 + 105) * math.log(0.9)
    assert together == pytest.approx(plain, abs=1e-4)


def test_cell_likelihoods_are_probabilities() -> None:
    """Of all outcomes of R reads of one cell, with their multiplicities, they add up to one."""
    for density, fails in ((0.3, 0.6), (1.0, 0.2), (0.01, 1.0)):
        total = sum(math.comb(3, k) * math.exp(cell_log_likelihood(np.eye(4, dtype=np.int64)[k], density, fails)) for k in range(4))
        assert total == pytest.approx(1.0)


def test_a_law_at_one_point_is_the_group_likelihood() -> None:
    counts = LawCounts(
        np.array([[[3], [5]], [[0], [1]]]), np.array([[97, 45, 0], [60, 99, 0]]), np.array([[100, 50, 0], [60, 100, 0]]),
        np.array([1, 4]),
    )  # fmt: skip
    groups = GroupCounts(np.array([100, 60]), np.array([3, 0]), np.array([50, 100]), np.array([5, 1]), np.array([1, 4]))
    z = np.array([stats.norm.ppf(0.04)])
    for share in (0.0, 0.3):
        law = law_log_likelihood(counts, z, (0.5, 1.0), share, 2.0)
        assert law == pytest.approx(group_log_likelihood(groups, 0.02, 0.04, max(share, 1e-13), 1.0, 2.0), abs=1e-4)


def test_fails_comes_from_the_truncated_counts() -> None:
    """With many cells the estimate is the truth, and its variance that of many samples."""
    rng, f, reads = np.random.default_rng(5), 0.3, 5
    estimates, variances = [], []
    for _ in range(300):
        k = rng.binomial(reads, f, 3000)
        found = estimate_failure_probability(np.bincount(np.concatenate([k, np.zeros(500, int)]), minlength=reads + 1))
        estimates.append(logit(found[0]))
        variances.append(found[1])
    assert np.mean(estimates) == pytest.approx(logit(f), abs=0.01)
    assert np.var(estimates) == pytest.approx(np.mean(variances), rel=0.25)
    assert estimate_failure_probability(np.array([10, 0, 0, 7])) == (1.0, 0.0)
    assert estimate_failure_probability(np.array([10, 3, 0, 0])) is None


def test_exact_intervals() -> None:
    assert clopper_pearson(0, 100) == (0.0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert clopper_pearson(100, 100)[1] == 1.0
    assert clopper_pearson(5, 100) == pytest.approx((0.01643, 0.11283), abs=1e-4)


def test_the_bootstrap_knows_groups() -> None:
    """Cells that fail together make a rate less certain than their number says."""
    rng = np.random.default_rng(8)
    rates = stats.norm.cdf((-2.3 + math.sqrt(0.4) * rng.normal(size=400)) / math.sqrt(0.6))
    k = rng.binomial(500, rates)
    low, high = bootstrap_rate(k, np.full(400, 500))
    exact = clopper_pearson(int(k.sum()), 200_000)
    assert low < k.sum() / 200_000 < high
    assert high - low > 3 * (exact[1] - exact[0])
    merged, times = np.unique(k, return_counts=True)
    assert bootstrap_rate(merged, np.full(merged.size, 500), times) == pytest.approx((low, high), rel=0.05)


# --- counts ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["column", "row", "bank", "line"])
def test_groups_are_those_that_the_simulation_uses(axis: str) -> None:
    bank, first, cells = Bank(8, 16), 640, 1000
    numbers = group_numbers(np.arange(first, first + cells), axis, bank)
    groups = find_groups(axis, bank, first, cells)
    for number, base in zip(groups.numbers, groups.base, strict=True):
        members = base + np.arange(groups.cells) * groups.stride
        inside = members[(members >= first) & (members < first + cells)]
        assert np.array_equal(np.flatnonzero(numbers == number) + first, inside)


def test_evidence_counts_cells_by_value_and_reads(rng: np.random.Generator) -> None:
    written = rng.integers(0, 1 << 64, 4, dtype=np.uint64)
    flips = rng.integers(0, 1 << 64, (3, 4), dtype=np.uint64) & rng.integers(0, 1 << 64, (3, 4), dtype=np.uint64)
    evidence = count_evidence([ReadBack(written, written ^ flips, 250)], Bank(4, 8))
    assert evidence.cells == 250
    held = np.unpackbits(written.view(np.uint8), bitorder="little")[:250]
    times = sum(np.unpackbits(flip.view(np.uint8), bitorder="little")[:250].astype(int) for flip in flips)
    for value in (0, 1):
        assert evidence.seen[value].tolist() == np.bincount(times[held == value], minlength=4).tolist()
    for groups in evidence.groups.values():
        assert int(((groups.n0 + groups.n1) * groups.times).sum()) == 250
        assert int(((groups.k0 + groups.k1) * groups.times).sum()) == evidence.faulty


# --- fits --------------------------------------------------------------------------------------------------------------------


def read_backs(spec: str, points: list[dict[str, float]], reads: int = 3, words: int = 4096, seed: int = 1) -> list[ReadBack]:
    memory, layout = open_memory(spec, seed), Layout("w", words * 64, 1)
    bits, backs = np.random.default_rng(seed).integers(0, 1 << 64, words, dtype=np.uint64), []
    region = memory.write(bits, layout, Key())
    for point in points:
        out = np.empty((reads, words), dtype=np.uint64)
        for number in range(reads):
            memory.at(**point).read(region, Key(0, 0, number), out[number])
        backs.append(ReadBack(bits, out, layout.bits, 0, point))
    return backs


@pytest.mark.parametrize(
    ("spec", "structure", "lifetime"),
    [
        ("uniform:ber=0.01", "uniform", Lifetime.READ),
        ("uniform:ber=0.01,lifetime=die", "uniform", Lifetime.DIE),
        ("uniform:p01=0.01,p10=0.03", "asymmetric", Lifetime.READ),
        ("uniform:p01=0.03,p10=0.01,lifetime=die", "asymmetric", Lifetime.DIE),
    ],
)
def test_repeats_tell_errors_of_the_die_from_those_of_the_read(spec: str, structure: str, lifetime: Lifetime) -> None:
    found = fit(read_backs(spec, [{}]))
    assert (found.best.structure, found.best.lifetime) == (structure, lifetime)
    ((term,),) = [point.terms for point in found.profile.points]
    (truth,) = open_memory(spec).terms
    assert term.lifetime is lifetime
    assert term.p01 == pytest.approx(truth.p01, rel=0.08)
    assert term.p10 == pytest.approx(truth.p10, rel=0.08)


def test_one_read_cannot_tell_and_says_so() -> None:
    found = fit(read_backs("uniform:ber=0.01", [{}], reads=1))
    (p, fails) = found.profile.constants
    assert (p.name, p.basis) == ("p", "measured")
    assert (fails.name, fails.basis) == ("F", "assumed")


def test_no_errors_are_a_result_with_an_upper_bound() -> None:
    found = fit(read_backs("uniform:ber=0,lifetime=die", [{}]))
    (p,) = found.profile.constants
    assert (p.value, p.low) == (0.0, 0.0)
    assert p.high == pytest.approx(clopper_pearson(0, 4096 * 64)[1])
    assert found.counted[0]["rate"].high == p.high
    found.profile.technology()


def test_several_points_keep_one_structure(tmp_path: Path) -> None:
    points = [{"vdd": vdd} for vdd in (0.62, 0.58, 0.56)]
    found = fit([back for back in simulate(TRUTHS["law, bitline"], 3) if back.conditions in points], name="chip")
    assert [point.conditions for point in found.profile.points] == points
    assert {term.structure.axis for point in found.profile.points for term in point.terms} == {"column"}
    assert found.counted[0]["rate"].method == "bootstrap over columns"
    names = [constant.name for constant in found.profile.constants]
    assert "p at vdd=0.58" in names
    assert load_profile(found.profile.save(tmp_path / "chip.toml")) == found.profile


def test_a_law_is_a_memory_that_fits_to_itself(tmp_path: Path) -> None:
    """Fit, save, load with file:PATH, read that memory back, and fit it again."""
    first = fit(simulate(TRUTHS["law, bitline"], 7), law="vdd", unit="V")
    path = first.profile.save(tmp_path / "chip.toml")
    backs = read_backs(f"file:{path}", [{"vdd": vdd} for vdd in (0.62, 0.6, 0.58, 0.56)], reads=1)
    again = fit(backs, law="vdd", unit="V")
    for one, other in zip(first.profile.constants, again.profile.constants, strict=True):
        assert one.low < other.high
        assert other.low < one.high
    assert first.law.exceptions == again.law.exceptions == 0


def test_only_one_value_errs() -> None:
    """All ones stored, as in the published block RAM: cells prefer zero, and the law is that of structure.Shared as it stands."""
    found = fit(simulate(TRUTHS["bitline, ones stored"], 1))
    ((term,),) = [point.terms for point in found.profile.points]
    assert (term.preference, term.p01) == ("zero", 0.0)
    mixed = fit(read_backs("sram-28nm-vc707", [{"vdd": 0.55}], reads=1, words=1 << 16))
    assert mixed.best.structure in ("asymmetric", "bitline")


def test_fitted_terms_read_back_at_the_fitted_rate() -> None:
    truth = TRUTHS["data-dependent"]
    found = fit(simulate(truth, 5))
    terms = found.profile.points[0].terms
    assert [term.failure_probability for term in terms] == pytest.approx([0.4, 0.7], abs=0.05)
    again = simulate(replace(truth, terms=terms), 6)
    (one, other) = (count_evidence(backs, Bank()) for backs in (simulate(truth, 5), again))
    assert other.faulty == pytest.approx(one.faulty, rel=0.15)


def test_fits_come_best_first_and_can_be_shown() -> None:
    found = fit(simulate(TRUTHS["wordline"], 2), TRUTHS["wordline"].bank)
    scores = [model.bic for model in found.models]
    assert scores == sorted(scores)
    assert str(found).startswith("wordline, errors last per die\n  p = 0.00")
    assert "BIC +" in str(found)


def test_all_structures_are_tried_where_the_data_allow() -> None:
    evidence = count_evidence(simulate(TRUTHS["bitline"], 1), Bank())
    tried = {model.structure for model in candidates(evidence)}
    assert tried == {"uniform", "asymmetric", "data-dependent", "bitline", "wordline", "clustered", "lines"}


def test_lines_are_a_mixture_of_good_and_bad_ones(rng: np.random.Generator) -> None:
    """Against the sum over which lines are bad, and for which value, line by line."""
    n0, n1 = rng.integers(5, 9, 6), rng.integers(5, 9, 6)
    k0, k1 = np.array([0, 0, 1, 2, 0, 3]), np.array([0, 1, 0, 2, 0, 1])
    counts, q = GroupCounts(n0, k0, n1, k1, np.array([4, 1, 2, 1, 1, 3])), 0.3
    for bad0, bad1 in ((0.2, 0.5), (0.5, 0.2), (0.4, 0.4), (0.5, 1.0)):
        total = 0.0
        for i, times in enumerate(counts.times):
            line = 0.0
            for u0, u1, share in ((1, 1, min(bad0, bad1)), (1, 0, max(bad0 - bad1, 0.0)), (0, 1, max(bad1 - bad0, 0.0)),
                                  (0, 0, 1.0 - max(bad0, bad1))):  # fmt: skip
                cells = [stats.binom.pmf(k, n, u * q) / stats.binom(n, 0.5).pmf(k) * 0.5**n
                         for u, k, n in ((u0, k0[i], n0[i]), (u1, k1[i], n1[i]))]  # fmt: skip
                line += share * cells[0] * cells[1]
            total += times * math.log(line)
        assert line_log_likelihood(counts, bad0, bad1, q) == pytest.approx(total)


def test_bad_lines_of_a_dram_are_found(tmp_path: Path) -> None:
    """The published law of bad lines, through the recording's fit, into a profile and out of it again."""
    share, inside = bad_lines("B", 1.05), 0.02
    spec = f"dram:vendor=B,p_in_line={inside},vdd=1.05"
    found = fit(read_backs(spec, [{"vdd": 1.05}], reads=1, words=1 << 15, seed=2))
    assert found.best.structure == "lines"
    intervals = {constant.name: (constant.low, constant.high) for constant in found.profile.constants}
    assert intervals["p_in_line"][0] < inside < intervals["p_in_line"][1]
    assert intervals["bad_lines"][0] < share < intervals["bad_lines"][1]
    found.profile.save(tmp_path / "lines.toml")
    loaded = load_profile(tmp_path / "lines.toml")
    assert loaded.points == found.profile.points
    assert loaded.constants == found.profile.constants
    ((term,),) = [point.terms for point in loaded.points]
    assert isinstance(term.structure, Lines)
    assert (term.structure.cells, term.structure.in_line) == (512, pytest.approx(2 * inside, rel=0.1))


@pytest.mark.parametrize(("p01", "p10", "preference"), [(0.004, 0.008, "cell"), (0.0, 0.006, "zero"), (0.006, 0.0, "one")])
def test_lines_may_be_bad_for_one_value(p01: float, p10: float, preference: str) -> None:
    """A line that is bad for cells which hold 0 is bad for those that hold 1, where that is more frequent."""
    term = ErrorTerm("truth", Lifetime.DIE, p01, p10, structure=Lines(128, 0.06), preference=preference)
    found = fit(simulate(replace(TRUTHS["lines"], terms=(term,), reads=1), 3), line=128)
    ((back,),) = [point.terms for point in found.profile.points]
    assert (found.best.structure, back.preference) == ("lines", preference)
    assert (back.p01, back.p10) == pytest.approx((p01, p10), rel=0.15)
    assert isinstance(back.structure, Lines)
    assert (back.structure.cells, back.structure.in_line) == (128, pytest.approx(0.06, rel=0.1))


# --- from files, and what is refused -------------------------------------------------------------------------------------------


def test_recordings_are_fitted_from_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = open_memory("uniform:ber=0.02,lifetime=die", 3)
    region = put(memory, Layout("w", 1 << 17, 1))
    tape = record(tmp_path / "reads.npz", memory, [region], range(2))
    main([str(tape), str(tmp_path / "fitted.toml")])
    assert "uniform, errors last per die" in capsys.readouterr().out
    assert len(extract_readbacks(load(tape))) == 1
    fitted = open_memory(f"file:{tmp_path / 'fitted.toml'}")
    (term,) = fitted.terms
    assert term.p01 == pytest.approx(0.02, rel=0.05)


def refused(**changes: object) -> str:
    with pytest.raises(InputError) as caught:
        fit(**changes)
    return one_paragraph(caught.value)


def test_what_cannot_be_fitted_is_told() -> None:
    die = read_backs("sram-14nm", [{"v_over_vmin": 0.8}, {"v_over_vmin": 0.85}], reads=1, words=1024)
    assert "no read-backs" in refused(readbacks=[])
    assert "no condition 'vdd'" in refused(readbacks=die, law="vdd")
    again = read_backs("uniform:ber=0.1", [{}], reads=2, words=64)
    assert "2, 3 times" in refused(readbacks=[*read_backs("uniform:ber=0.1", [{}], words=64), *again])
    reads = read_backs("uniform:ber=0.1", [{"ber": 0.1}, {"ber": 0.2}], words=64)
    assert "no threshold" in refused(readbacks=reads, law="ber")
    lines = read_backs("dram:vendor=B,p_in_line=0.02", [{"vdd": 1.05}, {"vdd": 1.06}], reads=1, words=1 << 15)
    assert "bad lines" in refused(readbacks=lines, law="vdd")
    rising = read_backs("uniform:ber=0.1,lifetime=die", [{"ber": 0.1}, {"ber": 0.2}], words=64)
    assert "do not grow" in refused(readbacks=rising, law="ber")
    other = read_backs("sram-14nm", [{"v_over_vmin": 0.82}], reads=1, words=1024, seed=2)
    assert "other bits" in refused(readbacks=[*die, *other], law="v_over_vmin")
    clean = read_backs("sram-14nm", [{"v_over_vmin": 1.0}, {"v_over_vmin": 0.8}], reads=1, words=1024)
    assert "at 1 of 2 points" in refused(readbacks=clean, law="v_over_vmin")


def test_shapes_are_checked() -> None:
    words = np.zeros(4, dtype=np.uint64)
    with pytest.raises(ValueError, match="words read"):
        ReadBack(words, np.zeros((2, 3), dtype=np.uint64), 100)
    assert popcount(words) == 0
    assert ErrorTerm("x", Lifetime.READ, 0, 0).rate == 0
