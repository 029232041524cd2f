"""Which operating point may be used: `optimize`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.host.campaign import optimize as search_module
from weakcell.host.campaign import optimum as records
from weakcell.host.campaign.optimize import default_values, find_nominal, open_search
from weakcell.host.campaign.optimum import Goal
from weakcell.host.datasets.registry import DataLike
from weakcell.host.report.chart_model import Axis, Panel, Series
from weakcell.host.report.chart_specs import energy_label
from weakcell.host.report.displayed_result import DisplayedResult, wrap_result
from weakcell.host.report.matplotlib_charts import plot_paper_figure
from weakcell.host.report.style import GREY, series_look
from weakcell.host.study.arguments import MemoryLike, build_study
from weakcell.host.study.executors import Threads, default_workers, run_task
from weakcell.host.study.networks import ModelLike
from weakcell.host.study.sweep_values import SweepLike, as_sweep
from weakcell.host.study.workload import open_workload

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def optimize(
    model: ModelLike = "digits-bnn",
    data: DataLike | None = None,
    *,
    memory: MemoryLike = "sram-14nm",
    sweep: SweepLike | None = None,
    max_drop: float = 0.01,
    share: float = 0.95,
    confidence: float = 0.95,
    failures: int = 1,
    tries: int = 3,
    partitions: int = 2,
    nominal: float | None = None,
    protect: Sequence[str] = (),
    read_every: Reads = DEFAULT_READS,
    batch: int = 256,
    seed: int = 0,
    images: int | None = None,
    task: str | None = None,
    output: str | None = None,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    on_trials: Callable[[int], None] | None = None,
) -> Optimum:
    """Find the lowest energy at which most dies lose little: candidates are screened on some dies and confirmed on fresh ones.

    Args:
        model: The network, as for `emulate`.
        data: Images and labels, as for `emulate`.
        memory: The memory of all weights, as for `emulate`. Its energy must be known.
        sweep: The candidates, as for `emulate`. None: 26 values over the valid range of the condition that is usually swept.
        max_drop: Accuracy (for pixels: mean IoU) that a die may lose, as a share.
        share: The share of dies that must keep within `max_drop`.
        confidence: The confidence of the whole statement.
        failures: Bad dies that a test may see. More make the test longer and less strict.
        tries: Candidates that may be tested. They share the confidence.
        partitions: Different values that layers may have; 1 for the same everywhere.
        nominal: The value that savings are relative to. None: the technology's.
        protect: Wrappers that are tried around the memory, besides none: `["secded", "in-place[code=parity]"]`.
        read_every: When weights are read again, as for `emulate`.
        batch: Images per read under `read_every="batch"`.
        seed: Names all dies and draws.
        images: Use only the first `images` images.
        task: What the output means, as for `emulate`.
        output: The output that is judged, as for `emulate`.
        data_dir: The folder to search first for a data set's files.
        threads: Threads; None for all cores.
        on_trials: Called with the number of trials that just finished.

    Returns:
        The optimum. `.chosen` is None if no candidate was confirmed; `.frame` has one row per screened candidate.

    Raises:
        UsageError: The data have no labels, no energy is known, or an argument cannot be understood.
        InputError: The network or data are missing, or do not fit each other.
        MemorySpecError: The memory is unknown, or a condition lies outside its valid range.

    Examples:
        >>> import weakcell
        >>> optimum = weakcell.optimize(
        ...     sweep={"v_over_vmin": [0.85, 1.0]}, max_drop=0.05, images=100, failures=0, tries=1, partitions=1
        ... )
        >>> optimum.chosen.candidate.value, round(optimum.saving, 4)
        (0.85, 0.3006)
    """
    goal = Goal(max_drop, share, confidence, failures, tries, partitions)
    goal.check()
    asked = as_sweep(sweep)
    study = build_study(
        model, data, memory=memory, read_every=read_every, batch=batch, seed=seed, images=images, task=task, output=output
    )
    workload = open_workload(model, data, images, None if data_dir is None else Path(data_dir), asked=study.asked)
    key = asked.key if asked else study.memory.technology.sweep
    values = asked.values if asked else default_values(study.memory, key or "")
    work = Threads(partial(run_task, {workload.key: workload}), threads or default_workers())
    search = open_search(workload, study, key, work, on_trials)
    start = nominal if nominal is not None else find_nominal(study.memory, search.key, values)
    return wrap_result(Optimum, search_module.optimize(search, values, goal, start, protect))


class Optimum(DisplayedResult, records.Optimum):
    """The operating point of lowest energy that most dies may use, and everything that was tried: from `optimize`.

    `chosen` is None if no candidate was confirmed; `saving` is its share of the nominal energy.
    """

    @property
    def title(self) -> str:
        """What was searched for."""
        goal = self.goal
        return f"Lowest energy at which {100 * goal.share:g} % of dies lose at most {100 * goal.max_drop:g} % {self.metric.words}"

    @property
    def headline(self) -> str:
        """The chosen point and its saving."""
        if self.chosen is None or self.saving is None:
            return f"{self.title}: none confirmed in {len(self.tests)} tests"
        value = self.chosen.candidate.value
        protection = self.chosen.candidate.setting.protection
        point = f"{self.key}={value:.6g}" + (f" behind {protection}" if protection else "")
        return f"{self.title}: {point}, {self.chosen.energy:.4g} {self.chosen.unit}, {100 * self.saving:.2f} % saved"

    @property
    def caption(self) -> str:
        """Accesses that the energy counts, and the confidence."""
        goal = self.goal
        return (
            f"Energy: the memory accesses of one inference; {self.nominal.accesses}. Confidence {100 * goal.confidence:g} %: "
            f"at most {goal.failures} of {goal.dies} fresh dies may lose more; {goal.tries} tests share it. Saving: against "
            f"{self.key}={self.nominal.candidate.value:.6g}."
        )

    @property
    def frame(self) -> pl.DataFrame:
        """One row per screened candidate: value, layers with a value of their own, energy, mean and worst loss."""
        rows = [
            {
                self.key: one.candidate.value,
                "protection": one.candidate.setting.protection,
                "layers": ", ".join(f"{layer}={setting}" for layer, setting in one.candidate.own.items()),
                "energy": one.energy,
                "energy_unit": one.unit,
                "mean_drop": one.mean,
                "worst_drop": max(one.drops),
                "how": one.how,
                "chosen": one is self.chosen,
            }
            for one in self.screened
        ]
        return pl.DataFrame(rows)

    @property
    def summary(self) -> pl.DataFrame:
        """The candidates that no other beats in energy and mean loss."""
        front = {id(one) for one in self.front}
        return self.frame.filter(pl.Series([id(one) in front for one in self.screened], dtype=pl.Boolean))

    def build_figure(self) -> Figure:
        """Plot the mean loss over the energy of all candidates, the front if several are on it, and the chosen one."""
        kinds: list[tuple[str, Sequence[records.ScreenedCandidate], dict[str, Any]]] = [
            ("candidates", self.screened, {**series_look(0), "dash": None}),
            ("Pareto front", self.front if len(self.front) > 2 else (), {"colour": GREY, "step": True}),
            ("chosen", [one for one in (self.chosen,) if one], {**series_look(1), "dash": None}),
        ]
        series = tuple(
            Series(name=name, x=[one.energy for one in ones], y=[self.metric.factor * one.mean for one in ones], **look)
            for name, ones, look in kinds if ones
        )  # fmt: skip
        loss = f"mean loss of {self.metric.words}" + (" (points)" if self.metric.share else "")
        return plot_paper_figure(Panel(Axis(energy_label(self.nominal.unit)), Axis(loss), series, title=self.title), 6.0)
