"""The sampler: a region described by arrays, from which kernels draw read errors block by block.

`Sampler` is plain data. `read_errors.py` draws from it; nothing here needs Numba, so the memory protocol can name the type cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.address import Words
from weakcell.memmodels.native.kernel_cache import Kernel
from weakcell.memmodels.sampling.rates import MAX_LEVELS, dyadic_steps, plan_rates

_fill_flips = Kernel("weakcell.memmodels.sampling.read_errors", "fill_flips")

VERSION = 2
"""The sampling format: the same version, seed and key give the same bits, permanently. It is recorded with every result."""

ROOT = 1
"""The root of all streams. Formats 1 and 2 share it, so dies are the same in both; reads and writes differ."""

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_NO_WEAK_CELLS = np.empty((0, 0), dtype=np.uint64)

TERM = np.dtype(
    [
        ("stream", np.uint64),
        ("rates", np.float64, (2,)),
        ("weak_row", np.int64),
        ("asymmetric", np.bool_),
        ("levels", np.int64),
        ("steps", np.uint64, (MAX_LEVELS, 2)),
        ("last", np.uint64, (2,)),
        ("low", np.int64, (2,)),
        ("first", np.int64, (3,)),
        ("invert_mask", np.uint64),
    ],
    align=True,
)
"""One error term that is drawn at each read, as compiled code sees it.

    stream          number of the term; names its random stream below that of the read
    rates           p01 and p10, of all cells or of the weak ones
    weak_row        first of the term's two rows in `Sampler.weak`; -1 if every cell may err
    asymmetric      whether p01 and p10 differ
    levels, steps, last      the dyadic masks (`dyadic.py`)
    low, first      the two Poisson tables: offsets, and entries first[i]..first[i + 1] of `Sampler.table`. Table 0 counts the hits
                    on all cells, table 1 those that flip only cells where stored ^ invert_mask is 1 (`rates.Recipe`)
"""

SOURCE = np.dtype(
    [
        ("stream", np.uint64),
        ("last_mask", np.uint64),
        ("first_word", np.int64),
        ("words", np.int64),
        ("written", np.int64),
        ("baseline", np.int64),
        ("matches_written", np.int64),
        ("terms", np.int64),
        ("count", np.int64),
        ("table", np.int64),
        ("weak", np.int64),
    ]
)
"""A sampler as compiled code takes it: sizes and numbers, `count` terms, and the addresses of its arrays."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """What kernels need in order to draw the read errors of one region.

    Attributes:
        stream: Random stream of (seed, die, array).
        first_word: First word of the region in its memory.
        last_mask: Bits of the last word that are cells.
        written: Stored bits as asked for, (words,) uint64.
        baseline: What the cells return before any error that is drawn at a read, (words,) uint64.
        matches_written: Whether `baseline` equals `written`.
        terms: The terms that are drawn at each read, (T,) of type TERM.
        table: Their Poisson tables, uint64, concatenated.
        weak: Masks of weak cells, (2 U, words) uint64: rows of cells that can read 1 for 0, and 0 for 1, for the U terms whose weak
            cells fail only at some reads.
    """

    stream: np.uint64
    first_word: int
    last_mask: np.uint64
    written: Words
    baseline: Words
    matches_written: bool
    terms: npt.NDArray[np.void]
    table: npt.NDArray[np.uint64]
    weak: npt.NDArray[np.uint64]

    @cached_property
    def source(self) -> npt.NDArray[np.void]:
        """The sampler as a table of one row, type SOURCE. It holds addresses: keep the sampler while it is in use."""
        return make_source_table((self,))


def make_source_table(samplers: Sequence[Sampler]) -> npt.NDArray[np.void]:
    """Return one row of type SOURCE per sampler. Rows hold addresses: keep the samplers while the table is in use."""
    rows = []
    for s in samplers:
        written, baseline, terms, table, weak = (array.ctypes.data for array in (s.written, s.baseline, s.terms, s.table, s.weak))
        sizes = s.first_word, s.written.size, written, baseline, s.matches_written, terms, s.terms.size, table, weak
        rows.append((s.stream, s.last_mask, *sizes))
    return np.array(rows, dtype=np.uint64).view(SOURCE)[:, 0]


def draw_region(sampler: Sampler, trial: int, write: int, read: int, flips: Words) -> int:
    """Write the flips of a whole region at one read into `flips`, (words,) uint64, and return how many there are."""
    return _fill_flips(sampler.source, trial, write, read, flips)


@dataclass(frozen=True, eq=False)
class PerReadTerm:
    """An error term that is drawn at each read.

    Attributes:
        number: Position of the term in its technology; names its random stream.
        p01: P(read 1 | stored 0), of all cells or of the weak ones.
        p10: P(read 0 | stored 1), likewise.
        weak: Masks of the weak cells (to one, to zero), or None if every cell may err.
    """

    number: int
    p01: float
    p10: float
    weak: tuple[Words, Words] | None = None


def make_sampler(
    stream: np.uint64, first_word: int, bits: int, written: Words, baseline: Words, terms: tuple[PerReadTerm, ...] = ()
) -> Sampler:
    """Build the sampler of a region of `bits` cells; the other arguments are fields of `Sampler`."""
    weak = [mask for term in terms if term.weak is not None for mask in term.weak]
    records, table = _pack_terms(tuple((term.number, term.p01, term.p10, term.weak is not None) for term in terms))
    return Sampler(
        stream=stream,
        first_word=first_word,
        last_mask=np.uint64((1 << ((bits - 1) % 64 + 1)) - 1),
        written=np.ascontiguousarray(written),
        baseline=np.ascontiguousarray(baseline),
        matches_written=baseline is written or bool(np.array_equal(baseline, written)),
        terms=records,
        table=table,
        weak=np.array(weak) if weak else _NO_WEAK_CELLS,
    )


@lru_cache(maxsize=256)
def _pack_terms(terms: tuple[tuple[int, float, float, bool], ...]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]:
    """Return (records of type TERM, their Poisson tables) for terms (number, p01, p10, has weak cells).

    All regions of a memory share the cached arrays; nobody writes to them.
    """
    records, tables, row = np.zeros(len(terms), dtype=TERM), [np.empty(0, np.uint64)], 0
    for record, (number, p01, p10, weak) in zip(records, terms, strict=True):
        recipe = plan_rates(p01, p10)
        record["stream"], record["rates"], record["asymmetric"] = number, recipe.rates, p01 != p10
        record["weak_row"], row = (row, row + 2) if weak else (-1, row)
        record["levels"], record["invert_mask"] = recipe.levels, 0 if recipe.extra_value else _ALL
        record["steps"], record["last"] = dyadic_steps(recipe.numerators, recipe.inverted, recipe.levels, MAX_LEVELS)
        record["low"] = recipe.hits.low, recipe.extra_hits.low
        own_tables = recipe.hits.cumulative, recipe.extra_hits.cumulative
        record["first"] = np.cumsum([sum(map(len, tables)), *map(len, own_tables)])
        tables.extend(own_tables)
    return records, np.concatenate(tables)
