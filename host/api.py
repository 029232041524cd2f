"""Studies from Python, in one call.

from host import emulate
result = emulate("digits-bnn", memory="sram-14nm", sweep="v_over_vmin=0.75:1.0:0.05", trials=20)
result.summary          # polars: one row per operating point
result.frame            # polars: one row per point and trial
result.save("out")      # the files that `weakcell emulate --out out` writes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Literal

from weakcell.emulator.faults.deployment import Sampling
from weakcell.emulator.faults.read_policy import DEFAULT_READS, ReadPolicy, Reads
from weakcell.host.datasets.registry import Dataset
from weakcell.host.report.captions import describe_result
from weakcell.host.study.networks import find_model
from weakcell.host.study.results import StudyResult
from weakcell.host.study.results_folder import save_study
from weakcell.host.study.runner import Progress, run_study
from weakcell.host.study.study import DEFAULT_MEMORY, DEFAULT_SWEEP, Study, resolve_study
from weakcell.host.study.sweep_values import Sweep, as_sweep
from weakcell.memmodels.catalogue import MemorySpec, parse_spec


class Emulation(StudyResult):
    """What `emulate` found. It shows itself in a notebook, and `save` writes it into a folder."""

    def save(self, out: str | Path, overwrite: bool = False) -> Path:
        """Write tables, configuration and figure into the folder `out`; OutputError if that cannot be. Returns the folder."""
        return save_study(self, Path(out), overwrite)

    def _repr_html_(self) -> str:
        table, caption = self.summary._repr_html_(), escape(describe_result(self))
        return f"<p><b>{escape(repr(self))}</b></p>{table}<p>{caption}</p>"


def emulate(
    model: str | Path = "digits-bnn",
    data: str | Path | Dataset | None = None,
    *,
    memory: str | MemorySpec | None = None,
    sweep: str | Sweep | None = None,
    place: Mapping[str, str | MemorySpec] | None = None,
    trials: int = 10,
    first_trial: int = 0,
    die: int | None = None,
    read_every: Reads = DEFAULT_READS,
    batch: int = 256,
    seed: int = 0,
    images: int | None = None,
    sampling: Literal["bits", "outputs"] = "bits",
    task: str | None = None,
    output: str | None = None,
    data_dir: Path | None = None,
    threads: int | None = None,
    on_trial: Callable[[Progress], None] | None = None,
) -> Emulation:
    """Run a network on a memory, at one operating point or over a sweep; the arguments mean what the CLI's options mean.

    Without memory and sweep, the 14 nm SRAM over its supply voltage. Raises the errors of `weakcell.memmodels.errors`; Ctrl-C
    raises
    StudyInterrupted, whose `result` holds the finished points.
    """
    if memory is None and sweep is None:
        sweep = DEFAULT_SWEEP
    find_model(model)
    study = Study(
        model=str(model),
        data=None if data is None or isinstance(data, Dataset) else str(data),
        memory=DEFAULT_MEMORY if memory is None else parse_spec(memory) if isinstance(memory, str) else memory,
        places=tuple((target, parse_spec(spec) if isinstance(spec, str) else spec) for target, spec in (place or {}).items()),
        sweep=as_sweep(sweep),
        trials=trials,
        first_trial=first_trial,
        die=die,
        read_every=ReadPolicy(read_every),
        batch=batch,
        seed=seed,
        images=images,
        sampling=Sampling(sampling),
        task=task,
        output=output,
    )
    resolved = resolve_study(study, data_dir, data if isinstance(data, Dataset) else None)
    found = run_study(resolved, threads=threads, on_trial=on_trial)
    return Emulation(found.resolved, found.outcomes, found.complete, found.seconds)
