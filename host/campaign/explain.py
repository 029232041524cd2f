"""Find one row of a campaign's table, build the command that reproduces it, and run that command."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from weakcell.host.board.memory.studies import refuse_hardware
from weakcell.host.campaign.store import CellRecord, Store, run_id
from weakcell.host.campaign.tables import Tables
from weakcell.host.study.arguments import resolve_arguments
from weakcell.host.study.runner import run_study
from weakcell.memmodels.errors import UsageError


@dataclass(frozen=True)
class StoredRun:
    """A run of the store: its cell and trial, and its stored results.

    Attributes:
        run: its name.
        flips: by tensor.
        metrics: besides accuracy and changed, by name.
    """

    cell: CellRecord
    trial: int
    run: str
    accuracy: float | None
    changed: float
    flips: dict[str, int]
    metrics: dict[str, float]

    @property
    def command(self) -> str:
        """The command as one line for a shell."""
        return shlex.join(self.arguments)

    @property
    def arguments(self) -> list[str]:
        """The command as a list of words."""
        options = self.cell.asked
        model = options["model"]
        words = ["weakcell", "emulate", f"./{model}" if model.startswith("-") else model]
        words += ["--data", options["data"]] if options["data"] is not None else []
        words += ["--memory", options["memory"]]
        for rule in options["place"]:
            words += ["--place", rule]
        words += ["--read-every", options["read_every"], "--seed", str(options["seed"])]
        words += ["--batch", str(options["batch"])] if options["read_every"] == "batch" else []
        words += ["--die", str(options["die"])] if options["die"] is not None else []
        words += ["--images", str(options["images"])] if options["images"] is not None else []
        words += ["--task", options["task"]] if options.get("task") is not None else []
        words += ["--output", options["output"]] if options.get("output") is not None else []
        return [*words, "--first-trial", str(self.trial), "--trials", "1"]


@dataclass(frozen=True)
class Comparison:
    """Results of a repeated run; `equal` says whether they are those of the store."""

    accuracy: float | None
    changed: float
    flips: dict[str, int]
    equal: bool


def find_run(store: Store, row: str) -> StoredRun:
    """Return the run with a row number, a name, or the beginning of a name; UsageError if there is none."""
    match = Tables(store).find_run(row)
    if match is None:
        raise UsageError(
            f"Row {row} of {store.folder}", "there is no such run", "Give the number in column `row`, or the name in column `run`"
        )
    cell, trial = match
    record = next(run for run in store.runs(cell.number) if run.trial == trial)
    flips = dict(zip(cell.tensors, record.flips, strict=True))
    return StoredRun(cell, trial, run_id(cell.sha256, trial), record.accuracy, record.changed, flips, record.metrics)


def reproduce(explained: StoredRun, data_dir: Path | None = None, yes: bool = False) -> Comparison:
    """Repeat a run and compare.

    Args:
        explained: the stored run.
        data_dir: folder to search first for data sets.
        yes: whether a memory may open a port.

    Raises:
        UsageError: a memory would open a port; or the network, the data, a memory's file or the sampling format has changed since.
    """
    options = explained.cell.asked
    resolved = resolve_arguments(
        options["model"],
        options["data"],
        data_dir,
        memory=options["memory"],
        place=options["place"],
        trials=1,
        first_trial=explained.trial,
        die=options["die"],
        read_every=options["read_every"],
        batch=options["batch"],
        seed=options["seed"],
        images=options["images"],
        task=options.get("task"),
        output=options.get("output"),
    )
    refuse_hardware(f"Reproducing run {explained.run}", [resolved], yes)
    result = run_study(resolved).outcomes[0].result
    if resolved.cell_sha256(resolved.points[0]) != explained.cell.sha256:
        raise UsageError(
            f"Reproducing run {explained.run}",
            "the network, the data, a memory's file or the sampling format have changed since",
            "Bring back what it was made with; campaign.json has hashes and versions",
        )
    flips = {name: result.flips.get(name, 0) for name in explained.cell.tensors}
    equal = (result.accuracy, result.changed, flips) == (explained.accuracy, explained.changed, explained.flips)
    equal = equal and dict(result.metrics) == explained.metrics
    return Comparison(result.accuracy, result.changed, flips, equal)
