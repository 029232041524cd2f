"""The law of each physical bank, and whether one law holds for all of them.

Consecutive words are striped over banks. Each bank is fitted by itself, with the structure of the whole: its own cells in the order
of its own rows and columns. The likelihood-ratio test compares the banks' laws with one law for all: twice the difference of the
log-likelihoods is chi-square with (banks - 1) x constants degrees of freedom if the banks are alike (Wilks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weakcell.host.board.readbacks.readback_set import ReadbackSet
from weakcell.memmodels.address import Words
from weakcell.memmodels.error_model.structure import Bank
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.fitting.counts import ReadBack
from weakcell.memmodels.fitting.fit import Fit
from weakcell.memmodels.fitting.voltage_law import VoltageLaw, fit_law
from weakcell.memmodels.profile import Constant

_FEWEST = 20
"""Cells of a bank that must have erred, and at two voltages, before a law is fitted to it."""
_DIFFERENT = 0.01
"""p-value below which the banks have different laws."""


@dataclass(frozen=True)
class BankLaw:
    """The law of a bank.

    Attributes:
        bank: its number: first those that share the first stripe.
        cells, erred: (cell, value) pairs, and how many of them erred.
        law: None if there is none.
        no_law: why there is none.
    """

    bank: int
    cells: int
    erred: int
    law: VoltageLaw | None
    no_law: str = ""


@dataclass(frozen=True)
class BankLaws:
    """The laws of all banks.

    Attributes:
        banks: in the order of their numbers.
        p_value: P(banks of one law differ so much); None if it cannot be tested.
        untested: why it was not tested.
    """

    banks: tuple[BankLaw, ...]
    p_value: float | None
    untested: str = ""

    @property
    def differ(self) -> bool:
        """Whether the banks have different laws, at a significance of 1 %."""
        return self.p_value is not None and self.p_value < _DIFFERENT

    def __str__(self) -> str:
        if self.p_value is None:
            return f"Whether all banks have one law was not tested: {self.untested}"
        if not self.differ:
            return f"One law holds for all banks (p = {self.p_value:.2g})"
        fitted = [(one.bank, one.law.constants) for one in self.banks if one.law is not None]
        (low, high) = (choose(fitted, key=lambda each: each[1][0].value) for choose in (min, max))
        return f"The banks have different laws (p = {self.p_value:.2g}): {_describe(*low)}, {_describe(*high)}"


def _describe(bank: int, constants: tuple[Constant, ...]) -> str:
    mu, s = (f"{one.value:.4g} {one.unit}" for one in constants[:2])
    return f"bank {bank} has mu = {mu}, s = {s}"


def fit_bank_laws(readbacks: ReadbackSet, backs: Sequence[ReadBack], found: Fit) -> BankLaws:
    """Fit the law of each bank.

    Args:
        readbacks: whose words are striped over banks.
        backs: the read-backs that the law of all cells was fitted to.
        found: that fit.
    """
    bank = Bank(readbacks.bank.rows, readbacks.bank.columns // readbacks.stripes)
    by_bank = list(zip(*(split_banks(back, readbacks) for back in backs), strict=True))
    laws = tuple(_fit_bank(number, parts, bank, found) for number, parts in enumerate(by_bank))
    fitted = [one.law for one in laws if one.law is not None]
    if len(fitted) < 2:
        return BankLaws(laws, None, f"fewer than two banks have a law ({next((one.no_law for one in laws if one.no_law), '')})")
    if found.best.axis not in (None, "column"):
        return BankLaws(laws, None, f"cells of a {found.best.axis} fail together, and its cells are in several banks")
    used = [parts for parts, one in zip(by_bank, laws, strict=True) if one.law is not None]
    together = [_join([parts[index] for parts in used], bank) for index in range(len(backs))]
    try:
        pooled = _fit(together, bank, found)
    except InputError as error:
        return BankLaws(laws, None, error.found)
    gain = 2.0 * (sum(_log_likelihood(law, pooled) for law in fitted) - pooled.log_likelihood)
    from scipy.stats import chi2

    degrees = (len(fitted) - 1) * len(pooled.constants)
    return BankLaws(laws, float(chi2.sf(max(gain, 0.0) / pooled.goodness.dispersion, degrees)))


def _log_likelihood(law: VoltageLaw, like: VoltageLaw) -> float:
    """Return the log-likelihood of a law of the same kind as another one."""
    return law.log_likelihood - (law.rivals.get(like.kind, 0.0) / 2.0 if law.kind != like.kind else 0.0)


def _fit_bank(number: int, parts: Sequence[ReadBack], bank: Bank, found: Fit) -> BankLaw:
    voltages = sorted({float(back.conditions["vdd"]) for back in parts})
    lowest = [back for back in parts if float(back.conditions["vdd"]) == voltages[0]]
    cells, erred = sum(back.addresses.size for back in lowest), sum(int(np.count_nonzero(back.errors)) for back in lowest)
    if erred < _FEWEST:
        return BankLaw(number, cells, erred, None, f"bank {number} has {erred} cells that erred, and {_FEWEST} are needed")
    if sum(any(back.errors.any() for back in parts if float(back.conditions["vdd"]) == vdd) for vdd in voltages) < 2:
        return BankLaw(number, cells, erred, None, f"bank {number} erred at one voltage only")
    try:
        return BankLaw(number, cells, erred, _fit(parts, bank, found))
    except InputError as error:
        return BankLaw(number, cells, erred, None, error.found)


def _fit(parts: Sequence[ReadBack], bank: Bank, found: Fit) -> VoltageLaw:
    voltages = sorted({float(back.conditions["vdd"]) for back in parts})
    points = [(vdd, [back for back in parts if float(back.conditions["vdd"]) == vdd]) for vdd in voltages]
    assert found.law is not None
    return fit_law(points, "V", found.best, bank)


def split_banks(back: ReadBack, readbacks: ReadbackSet) -> list[ReadBack]:
    """Return the read-back of each physical bank, whose cells are in the order of its own addresses."""
    per_stripe, banks = readbacks.bank.rows * readbacks.bank.columns, list[ReadBack]()
    for start in range(0, back.bits, per_stripe):
        end = min(start + per_stripe, back.bits)
        for stripe in range(readbacks.stripes):
            chosen = slice(start // 32 + stripe, end // 32, readbacks.stripes)
            written, *reads = (_take(words, chosen) for words in (back.written, *back.reads))
            used = None if back.used is None else _take(back.used, chosen)
            bits = 32 * len(range(*chosen.indices(end // 32)))
            banks.append(ReadBack(written, np.stack(reads), bits, 0, back.conditions, used))
    return banks


def _take(words: Words, chosen: slice) -> Words:
    """Return some of the words of 32 bits, filled up to whole words of 64."""
    taken = words.view("<u4")[chosen]
    filled = np.zeros(-(-taken.size // 2) * 2, np.uint32)
    filled[: taken.size] = taken
    return filled.view(np.uint64)


def _join(parts: Sequence[ReadBack], bank: Bank) -> ReadBack:
    """Return the read-backs of several banks as one, each bank at its own place."""
    words = bank.rows * bank.columns // 64

    def place(pieces: Sequence[Words]) -> Words:
        whole = np.zeros(len(parts) * words, np.uint64)
        for number, piece in enumerate(pieces):
            whole[number * words : number * words + piece.size] = piece
        return whole

    used = place([_all_cells(part) if part.used is None else part.used & _all_cells(part) for part in parts])
    reads = np.stack([place([part.reads[number] for part in parts]) for number in range(len(parts[0].reads))])
    return replace(parts[0], written=place([part.written for part in parts]), reads=reads, bits=used.size * 64, used=used)


def _all_cells(part: ReadBack) -> Words:
    mask = np.zeros(part.written.size * 64, np.uint8)
    mask[: part.bits] = 1
    return np.packbits(mask, bitorder="little").view(np.uint64)
