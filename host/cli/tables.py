"""Tables of results that fit the terminal: columns are shortened, then left out in a stated order; no digit is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from weakcell.host.cli.terminal import show, table_width
from weakcell.host.report.captions import NO_DIFFERENCE

_BETWEEN = 2
"""Spaces between two columns."""


@dataclass(frozen=True)
class Column:
    """A column of text.

    Attributes:
        title: Its heading.
        cells: Its text, one for each row.
        left: Aligned to the left, as words are.
        drop: 0 for a column that is always shown. The others follow in this order, as long as they fit.
        short: Heading where space is short.
        short_cells: Text where space is short.
    """

    title: str
    cells: Sequence[str]
    left: bool = False
    drop: int = 0
    short: str = ""
    short_cells: Sequence[str] | None = None

    @property
    def width(self) -> int:
        """Characters of its widest line."""
        return max(map(cell_len, (self.title, *self.cells)))

    def shortened(self) -> Column:
        """Return the column in fewer characters and with all its digits: the percent sign moves into the heading."""
        numbers = [cell for cell in self.cells if cell and cell != NO_DIFFERENCE]
        percent = bool(numbers) and all(cell.endswith(" %") for cell in numbers)
        title = self.short or self.title
        if percent and "%" not in title:
            title += " %"
        cells = self.short_cells or [_shorten(cell.removesuffix(" %") if percent else cell) for cell in self.cells]
        return replace(self, title=title, cells=cells)

    def extended(self, cell: str) -> Column:
        """Return the column with one more cell, whatever the space."""
        short_cells = None if self.short_cells is None else [*self.short_cells, cell]
        return replace(self, cells=[*self.cells, cell], short_cells=short_cells)


def place_column(key: str | None, places: Sequence[str]) -> Column:
    """Return the first column of a table of operating points.

    Args:
        key: The swept condition; None: the places are memories.
        places: Its values, or the SPECs of the memories.
    """
    if key is not None:
        return Column(key, places)
    return Column("memory", places, left=True, short_cells=[place.partition(":")[0] for place in places])


def fit_columns(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Choose the columns that fit.

    Args:
        columns: All columns, in the order of the table.
        width: Characters of a line.

    Returns:
        The columns to show, and the headings of those that are left out.
    """
    if _width(columns) <= width:
        return list(columns), []
    short = [column.shortened() for column in columns]
    shown = [index for index, column in enumerate(short) if not column.drop]
    for index in sorted((index for index, column in enumerate(short) if column.drop), key=lambda index: short[index].drop):
        if _width([*(short[other] for other in shown), short[index]]) <= width:
            shown.append(index)
    left_out = [column.title.removesuffix(" %") for index, column in enumerate(short) if index not in shown]
    return [short[index] for index in sorted(shown)], left_out


def show_table(columns: Sequence[Column]) -> None:
    """Print a table of all rows; name the columns that do not fit."""
    shown, dropped = fit_columns(columns, table_width())
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _BETWEEN, 0, 0))
    for column in shown:
        table.add_column(Text(column.title), justify="left" if column.left else "right", overflow="fold")
    for row in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*map(Text, row))
    show(table)
    if dropped:
        show(f"Columns that do not fit: {', '.join(dropped)}.", "dim")


def _shorten(cell: str) -> str:
    return "all equal" if cell == NO_DIFFERENCE else cell.replace(" … ", "…")


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + _BETWEEN * (len(columns) - 1)
