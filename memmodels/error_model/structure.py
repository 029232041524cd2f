"""Spatial structure: groups of cells that fail together, and how weak each group is.

A bank is rows x columns of cells; address = (bank * rows + row) * columns + column. A group is a column of a bank (its bitline), a
row (its wordline), a whole bank, or a line of consecutive cells. Structures keep the marginal rate: averaged over groups, a cell
fails with the rate of its term. Every group's own rate rises with it, so die maps stay nested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.sampling.streams import pick_words

Axis = Literal["column", "row", "bank", "line"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bank:
    """Size of one bank in cells."""

    rows: int = 1024
    columns: int = 16

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a bank of {self.rows} x {self.columns} cells")


@dataclass(frozen=True)
class Shared:
    """Cells of a group share a part of the variance of their thresholds.

    threshold = mu + s (sqrt(share) group + sqrt(1 - share) cell), both standard normal. If Phi(z) is the marginal rate, a group
    with value x fails with Phi((z + sqrt(share) x) / sqrt(1 - share)).
    """

    axis: Axis
    share: float
    bank: Bank = Bank()

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0:
            raise ValueError(f"share = {self.share} must lie in [0, 1)")

    def group_rates(self, rate: float, stream: np.uint64, groups: npt.NDArray[np.int64]) -> Floats:
        """Return the rate of each of these groups at a marginal rate."""
        from scipy.special import ndtr, ndtri

        uniform = ((pick_words(stream, groups) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        mixed: Floats = ndtr((ndtri(rate) + np.sqrt(self.share) * ndtri(uniform)) / np.sqrt(1.0 - self.share))
        return mixed


@dataclass(frozen=True)
class Lines:
    """Errors come in bad lines of `cells` consecutive cells.

    A share rate / in_line of the lines is bad. Cells of a bad line fail with probability `in_line`, others never.
    """

    cells: int
    in_line: float

    axis: Axis = "line"

    def __post_init__(self) -> None:
        if self.cells < 1 or not 0.0 < self.in_line <= 1.0:
            raise ValueError(f"lines of {self.cells} cells that fail with {self.in_line}")

    @property
    def bank(self) -> Bank:
        """A line as a bank of one row."""
        return Bank(1, self.cells)

    def group_rates(self, rate: float, stream: np.uint64, groups: npt.NDArray[np.int64]) -> Floats:
        """Return `in_line` for bad lines and 0 for good ones."""
        uniform = (pick_words(stream, groups) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.where(uniform < rate / self.in_line, max(rate, self.in_line), 0.0)


class Groups(NamedTuple):
    """The groups that a run of cells touches: cell i < cells of group k has address base[k] + i * stride."""

    numbers: npt.NDArray[np.int64]
    base: npt.NDArray[np.int64]
    cells: int
    stride: int


def find_groups(axis: Axis, bank: Bank, first: int, cells: int) -> Groups:
    """Return the groups that cells first..first + cells of a memory touch, with all their cells.

    Args:
        axis: What a group is.
        bank: Size of a bank.
        first: Address of the first cell.
        cells: Number of cells.
    """
    size = bank.rows * bank.columns
    if axis == "column":
        banks = np.arange(first // size, (first + cells - 1) // size + 1)
        numbers = (banks[:, None] * bank.columns + np.arange(bank.columns)).reshape(-1)
        base = numbers // bank.columns * size + numbers % bank.columns
        return Groups(numbers, base, bank.rows, bank.columns)
    length = size if axis == "bank" else bank.columns
    numbers = np.arange(first // length, (first + cells - 1) // length + 1)
    return Groups(numbers, numbers * length, length, 1)
