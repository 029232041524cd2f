"""Coverage of the fit: simulate dies of every structure, fit them, and count how often the intervals contain the truth.

    python -m weakcell.memmodels.fitting --coverage --dies 400

Required: over 200 dies with at least 500 flips each, the lower Clopper-Pearson bound of the coverage of the 95 % intervals is at
least 0.90, and the true structure has the lowest BIC in at least 90 %. With 200 dies, an interval with exactly 95 % coverage misses
that bound once in five times (188 are needed); with 400 dies, once in fifty (371). All truths use the same dies, so their results
are correlated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from weakcell.memmodels.address import Layout
from weakcell.memmodels.definition import Condition, Conditions, Technology, Term, no_cost
from weakcell.memmodels.error_model.structure import Bank, Lines, Shared
from weakcell.memmodels.error_model.terms import Cells, ErrorTerm, Lifetime
from weakcell.memmodels.fitting.counts import ReadBack
from weakcell.memmodels.fitting.fit import Fit, fit
from weakcell.memmodels.fitting.models import clopper_pearson
from weakcell.memmodels.memory import Key
from weakcell.memmodels.profile import ProbitLaw
from weakcell.memmodels.simulated import SimulatedMemory

BITS = 1 << 18
VOLTS = (0.62, 0.60, 0.58, 0.56)


@dataclass(frozen=True)
class Truth:
    """What is simulated, and what the fit should find.

    Attributes:
        structure: The true structure.
        constants: True values of the constants.
        terms: Error terms, if there is no law.
        law: A probit over voltage.
        bank: Of the structure.
        reads: Reads of each region.
        written: `random` bits or `ones`.
    """

    structure: str
    constants: Mapping[str, float]
    terms: tuple[ErrorTerm, ...] = ()
    law: ProbitLaw | None = None
    bank: Bank = field(default_factory=Bank)
    reads: int = 4
    written: str = "random"

    def technology(self) -> Technology:
        """Return the truth as a technology with the one condition `vdd`."""

        def terms(conditions: Conditions) -> tuple[Term, ...]:
            return self.terms if self.law is None else self.law.terms(float(conditions["vdd"]))

        vdd = Condition("vdd", "V", "", VOLTS[0], low=VOLTS[-1], high=VOLTS[0])
        return Technology("truth", "", (vdd,), terms, no_cost, "", "a simulation", "assumed")


def _weak(
    structure: Shared | Lines | None = None, p01: float = 0.006, p10: float = 0.006, failure_probability: float = 0.6
) -> tuple[ErrorTerm, ...]:
    return (ErrorTerm("truth", Lifetime.DIE, p01, p10, failure_probability=failure_probability, structure=structure),)


def _law(structure: Shared | None = None, share01: float = 1.0, preference: str = "cell", share10: float = 1.0) -> ProbitLaw:
    like = ErrorTerm("truth", Lifetime.DIE, 0.0, 0.0, structure=structure, preference=preference)  # type: ignore[arg-type]
    return ProbitLaw("vdd", "V", VOLTS[-1], VOLTS[0], 0.46, 0.04, share01, share10, like)


_BLOCK, _SQUARE = Bank(16, 64), Bank(256, 64)
_COLUMN, _ROW, _CLUSTER = Shared("column", 0.42), Shared("row", 0.3, _SQUARE), Shared("bank", 0.25, _BLOCK)
TRUTHS = {
    "uniform": Truth("uniform", {"p": 0.006, "F": 0.6}, _weak()),
    "uniform, one read": Truth("uniform", {"p": 0.006}, _weak(failure_probability=1.0), reads=1),
    "asymmetric": Truth("asymmetric", {"p01": 0.004, "p10": 0.008, "F": 0.6}, _weak(None, 0.004, 0.008)),
    "bitline": Truth("bitline", {"p": 0.006, "share": 0.42, "F": 0.6}, _weak(_COLUMN)),
    "bitline, ones stored": Truth(
        "bitline",
        {"p10": 0.006, "share": 0.42},
        (ErrorTerm("truth", Lifetime.DIE, 0.0, 0.006, structure=_COLUMN, preference="zero"),),
        reads=1,
        written="ones",
    ),
    "wordline": Truth("wordline", {"p": 0.006, "share": 0.3, "F": 0.6}, _weak(_ROW), bank=_SQUARE),
    "clustered": Truth("clustered", {"p": 0.006, "share": 0.25, "F": 0.6}, _weak(_CLUSTER), bank=_BLOCK),
    "lines": Truth("lines", {"p_in_line": 0.02, "bad_lines": 0.2, "F": 0.6}, _weak(Lines(512, 0.04), 0.004, 0.004)),
    "data-dependent": Truth(
        "data-dependent",
        {"P": 0.006, "F0": 0.4, "F1": 0.7},
        (
            ErrorTerm("on 0", Lifetime.DIE, 0.006, 0.0, Cells.INVERT, failure_probability=0.4),
            ErrorTerm("on 1", Lifetime.DIE, 0.0, 0.006, Cells.INVERT, failure_probability=0.7),
        ),
    ),
    "law": Truth("uniform", {"mu": 0.46, "s": 0.04}, law=_law(), reads=1),
    "law, asymmetric": Truth("asymmetric", {"mu": 0.46, "s": 0.04, "ratio": 0.4}, law=_law(None, 0.4), reads=1),
    "law, per cell": Truth(
        "asymmetric",
        {"mu": 0.46, "s": 0.04, "ratio": 0.4},
        law=ProbitLaw(
            "vdd", "V", VOLTS[-1], VOLTS[0], 0.46, 0.04, 0.4 / 1.4, 1.0 / 1.4, ErrorTerm("truth", Lifetime.DIE, 0.0, 0.0)
        ),
        reads=1,
    ),
    "law, bitline": Truth("bitline", {"mu": 0.46, "s": 0.04, "share": 0.42}, law=_law(_COLUMN), reads=1),
}


@dataclass
class Tally:
    """Counts over dies.

    Attributes:
        covered: Intervals that contained the truth, by constant.
        dies: Dies that were fitted.
        recognised: Dies whose structure was recognised.
        fewest: Fewest flips of a die.
        seconds: Time of all fits.
    """

    covered: dict[str, int]
    dies: int = 0
    recognised: int = 0
    fewest: int = 1 << 62
    seconds: float = 0.0

    @property
    def bounds(self) -> dict[str, float]:
        """Lower 95 % Clopper-Pearson bound of the coverage of each constant."""
        return {name: clopper_pearson(k, self.dies, 0.90)[0] for name, k in self.covered.items()}


def simulate(truth: Truth, die: int, seed: int = 2026) -> list[ReadBack]:
    """Return the read-backs of one simulated die: at one operating point, or at all points of the law."""
    memory = SimulatedMemory(truth.technology(), {"vdd": VOLTS[0]}, seed, die)
    layout = Layout("w", BITS, 1)
    bits = np.random.default_rng([seed, die]).integers(0, 1 << 64, layout.words, dtype=np.uint64)
    region = memory.write(~np.zeros_like(bits) if truth.written == "ones" else bits, layout, Key(die))
    readbacks = []
    for vdd in VOLTS if truth.law else VOLTS[:1]:
        there, reads = memory.at(vdd=vdd), np.empty((truth.reads, layout.words), dtype=np.uint64)
        for number, out in enumerate(reads):
            there.read(region, Key(die, 0, number), out)
        readbacks.append(ReadBack(region.written, reads, layout.bits, region.first_word * 64, {"vdd": vdd}))
    return readbacks


def count_flips(readbacks: list[ReadBack]) -> int:
    """Return the faulty cells of the read-back with most of them."""
    return max(int(np.count_nonzero(back.errors)) for back in readbacks)


def measure_coverage(truth: Truth, dies: int, first: int = 0) -> Tally:
    """Fit `dies` dies of a truth, from number `first` on, and count."""
    tally = Tally(dict.fromkeys(truth.constants, 0))
    begin = time.perf_counter()
    for die in range(first, first + dies):
        readbacks = simulate(truth, die)
        found = fit(readbacks, truth.bank, "vdd" if truth.law else None, unit="V")
        tally.dies += 1
        tally.fewest = min(tally.fewest, count_flips(readbacks))
        tally.recognised += found.best.structure == truth.structure
        for name, inside in find_covered(found, truth).items():
            tally.covered[name] += inside
    tally.seconds = time.perf_counter() - begin
    return tally


def find_covered(found: Fit, truth: Truth) -> dict[str, bool]:
    """Return whether each interval contains the truth.

    A die that was taken for another structure has no interval for some constants; that counts as a miss.
    """
    intervals = {constant.name: constant for constant in found.profile.constants}
    return {
        name: name in intervals and intervals[name].low <= value <= intervals[name].high for name, value in truth.constants.items()
    }


def print_coverage(dies: int, only: str | None = None) -> None:
    """Print a line per truth."""
    print(f"{'truth':22s} {'dies':>5s} {'flips':>6s} {'chosen':>7s}   coverage of 95 % intervals (lower bound)")
    for name, truth in TRUTHS.items():
        if only is not None and name != only:
            continue
        tally = measure_coverage(truth, dies)
        shown = "  ".join(f"{c} {tally.covered[c] / dies:.3f} ({bound:.3f})" for c, bound in tally.bounds.items())
        print(
            f"{name:22s} {dies:5d} {tally.fewest:6d} {tally.recognised / dies:7.3f}   {shown}   {tally.seconds:.0f} s", flush=True
        )
