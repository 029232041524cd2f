"""The memories that can be emulated: `memories`, `open_memory`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import polars as pl

from weakcell.host.analysis.technology_curve import CurvePoint, list_lifetimes, sample_curve
from weakcell.host.report.displayed_result import DisplayedResult
from weakcell.host.report.matplotlib_charts import label_decades
from weakcell.host.report.simple_figures import plot_lines
from weakcell.host.study.arguments import MemoryLike, as_memory_spec
from weakcell.memmodels import catalogue
from weakcell.memmodels.definition import Technology
from weakcell.memmodels.memory import Memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class MemoryCatalogue(DisplayedResult, Mapping[str, Technology]):
    """Every memory technology by name: from `memories`.

    A technology's record has its `conditions` with valid ranges, its `law`, `source` and `basis`.
    """

    def __getitem__(self, name: str) -> Technology:
        return catalogue.technology(name)

    def __iter__(self) -> Iterator[str]:
        return iter(catalogue.names())

    def __len__(self) -> int:
        return len(catalogue.names())

    @property
    def title(self) -> str:
        """What this is."""
        return "Memory technologies"

    @property
    def headline(self) -> str:
        """How many there are, and their names."""
        return f"{len(self)}: {', '.join(self)}"

    @property
    def caption(self) -> str:
        """How to use one."""
        return 'Use one as memory="NAME:condition=value,…"; memories()["NAME"].conditions lists its conditions.'

    @property
    def frame(self) -> pl.DataFrame:
        """One row per technology: name, title, the condition that is usually swept, its range, lifetimes, basis."""
        rows = []
        for name, technology in self.items():
            swept = next((condition for condition in technology.conditions if condition.name == technology.sweep), None)
            rows.append(
                {
                    "name": name,
                    "title": technology.title,
                    "sweep": technology.sweep,
                    "valid_range": swept.range if swept else None,
                    "errors_last_per": list_lifetimes(technology),
                    "basis": technology.basis,
                }
            )
        return pl.DataFrame(rows)

    @property
    def summary(self) -> pl.DataFrame:
        """The same as `frame`."""
        return self.frame

    def build_figure(self) -> Figure:
        """Plot the larger of p01 and p10 over the valid range of each law, from its lowest to its highest value."""
        lines = {}
        for name, technology in self.items():
            curve: list[CurvePoint] = [point for point in sample_curve(technology) if max(point.p01, point.p10) > 0]
            if curve:
                steps = [100.0 * i / max(1, len(curve) - 1) for i in range(len(curve))]
                lines[name] = (steps, [max(point.p01, point.p10) for point in curve])
        figure = plot_lines(self.title, ("position in the valid range (%)", "bit error rate"), lines)
        for axes in figure.axes:
            axes.set_yscale("log")
            label_decades(axes.yaxis)
        return figure


def memories() -> MemoryCatalogue:
    """List the memory technologies.

    Returns:
        A mapping from name to `Technology` that shows itself as a table.

    Examples:
        >>> import weakcell
        >>> known = weakcell.memories()
        >>> "sram-14nm" in known, known["sram-14nm"].sweep
        (True, 'v_over_vmin')
    """
    return MemoryCatalogue()


def open_memory(memory: MemoryLike, *, seed: int = 0, die: int = 0, array: int = 0) -> Memory:
    """Open a memory at one operating point, to write bits into it and read them back.

    Args:
        memory: A SPEC such as `"sram-14nm:v_over_vmin=0.8"`, or a dict such as `{"name": "sram-14nm", "v_over_vmin": 0.8}`.
        seed: Names all dies and draws.
        die: The number of the die.
        array: The number of the array on the die.

    Returns:
        The memory: `write(bits, layout, key)`, `read(region, key, out)`, `at(**conditions)`, `cost(region, accesses)`.

    Raises:
        MemorySpecError: The memory is unknown, or a condition lies outside its valid range.
        BoardError: A board does not answer.

    Examples:
        >>> import weakcell
        >>> memory = weakcell.open_memory("uniform:ber=0.01", seed=3)
        >>> memory.conditions["ber"]
        0.01
    """
    return catalogue.open_memory(as_memory_spec(memory), seed, die, array)
