"""Training networks that tolerate bit errors: `train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from weakcell.host.report.chart_model import condition_axis
from weakcell.host.report.displayed_result import DisplayedResult, share_range
from weakcell.host.report.matplotlib_charts import save_figure
from weakcell.host.report.training_figure import plot_training
from weakcell.host.study.arguments import MemoryLike, as_memory_spec
from weakcell.host.study.sweep_values import SweepLike, as_sweep, parse_sweep
from weakcell.host.table_files import open_table
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from weakcell.host.train.settings import Run


def train(
    settings: Mapping[str, Any] | str | Path | None = None,
    *,
    preset: str | None = None,
    out: str | Path = "trained",
    grid: Mapping[str, Sequence[Any]] | None = None,
    part: Literal["validation", "test"] = "validation",
    memory: MemoryLike = "uniform",
    sweep: SweepLike | None = None,
    trials: int = 2,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    threads: int = 2,
    processes: int = 1,
    resume: bool = False,
    qonnx: bool = False,
    notify: Callable[[str], None] | None = None,
    **given: Any,
) -> TrainingResult:
    """Train quantized or binarized networks, export them to ONNX, and evaluate them under errors.

    Needs `pip install 'weakcell[train]'` (torch).

    Args:
        settings: Settings of a run by name, or a TOML file with the tables `[run]` and `[grid]`.
        preset: Name of a table of the papers whose runs are trained at full length, as in `mcel-fashion-mnist`; all other settings
            win over it. `weakcell train --help` lists them.
        out: The folder of networks, records and tables.
        grid: Lists of values by setting name: every combination is trained.
        part: The images that evaluate: `validation` for choices, `test` for the end.
        memory: The memory that evaluates, as for `emulate`.
        sweep: Its sweep, as for `emulate`. None: the preset's, or `ber=0:0.35:0.01`, for CIFAR-10 `ber=0:0.06:0.005`.
        trials: Passes of the evaluation at each point.
        data_dir: The folder to search first for a data set's files.
        device: `cpu` or `cuda`.
        threads: Threads of torch and of the evaluation. The trained weights depend on it.
        processes: Runs that are trained at a time, each in a process of its own with so many threads.
        resume: Continue in a folder with finished or interrupted runs.
        qonnx: Also write each network as NAME.qonnx.onnx, for FINN or hls4ml.
        notify: Called with a line of text before each run.
        given: Settings, which win over those in `settings`: `data` (`digits`, `fashion-mnist`, `cifar-10`, `svhn`, `imagenette`),
            `network` (`fcnn`, `vgg3`, `vgg7`, `mobilenetv2`, `resnet18`), `bits` (1, 2, 4, 8), `quantizer` (`power-of-two`,
            `min-max`), `width`, `loss` (`cel`, `mhl:b=128`, `mcel:m=32`), `flips` (a memory SPEC), `gradient`, `tolerance`,
            `output_scale` (`papers`, `fan-in`, a number), `epochs`, `halve_every`, `schedule` (`step`, `cosine`), `clip`,
            `patience`, `augment` (`crops`, `crops-flips`), `ema`, `margin_warm_up`, `batch`, `rate`, `images`, `precision`,
            `seed`.

    Returns:
        The networks: `.networks` has the ONNX file of each run, `.frame` one row per run, `.curves` their accuracies. The folder
        also has a figure, training.png and training.svg.

    Raises:
        UsageError: torch or the device is missing, or a setting is wrong.
        InputError: The data set is missing.
        OutputError: The folder holds runs, and `resume` is False.

    Examples:
        >>> import weakcell
        >>> result = weakcell.train(data="digits", width=0.05, epochs=1, images=200, sweep="ber=0,0.1", trials=1, out="trained")
        >>> result.frame.height, len(result.networks)
        (1, 1)
    """
    check_torch()
    import torch

    from weakcell.host.datasets.training import load_training_data
    from weakcell.host.train.evaluation import SWEEP, SWEEPS, EvaluationConfig
    from weakcell.host.train.presets import find_preset
    from weakcell.host.train.training_grid import TrainingJob, train_runs

    runs = list_runs(settings, grid, given, preset)
    if device != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"--device {device}", "torch finds no such device here", "Leave it out to train on the CPU")
    default = SWEEPS.get(runs[0].data, SWEEP) if preset is None else find_preset(preset).sweep
    points = default if sweep is None else sweep if isinstance(sweep, str) else str(as_sweep(sweep))
    config = EvaluationConfig(points, memory if isinstance(memory, str) else str(as_memory_spec(memory)), trials)
    load_named = partial(load_training_data, data_dir=None if data_dir is None else Path(data_dir))
    folder = Path(out)
    job = TrainingJob(load_named, config, part, device, threads, qonnx, notify or (lambda text: None), processes)
    if preset is not None:
        job.report(f"{find_preset(preset).about}; {len(runs)} runs")
    with _own_torch(threads):
        frame = train_runs(runs, folder, job, resume=resume)
    with open_table(folder / "curves.csv") as file:
        curves = pl.read_csv(file, schema_overrides={"id": pl.String})
    result = TrainingResult(folder, frame, curves, points, config.memory)
    save_figure(result.build_figure, [folder / "training.png", folder / "training.svg"])
    return result


_torch_lock = Lock()
"""torch's threads and random numbers belong to the process: one training at a time may set them."""


@contextmanager
def _own_torch(threads: int) -> Iterator[None]:
    """Let torch use some threads, and restore its number of threads and its random state afterwards."""
    import torch

    with _torch_lock:
        before, random = torch.get_num_threads(), torch.get_rng_state()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.set_rng_state(random)


def check_torch() -> None:
    """UsageError if torch is not installed."""
    if find_spec("torch") is None or find_spec("pydantic") is None:
        raise UsageError("weakcell train", "torch is not installed", "Install it with pip install 'weakcell[train]'")


def list_runs(
    settings: Mapping[str, Any] | str | Path | None,
    grid: Mapping[str, Sequence[Any]] | None,
    given: Mapping[str, Any],
    preset: str | None = None,
) -> list[Run]:
    """Return the checked runs of a preset, settings and a grid that win over it, and single settings that win over all.

    Raises:
        UsageError: A setting is unknown or wrong.
    """
    from weakcell.host.train.presets import expand_preset, find_preset
    from weakcell.host.train.settings import expand_runs, read_settings

    shared, several = read_settings(Path(settings)) if isinstance(settings, str | Path) else (dict(settings or {}), {})
    several = {**several, **{name: list(values) for name, values in (grid or {}).items()}}
    if preset is not None:
        return expand_preset(find_preset(preset), {**{k: v for k, v in shared.items() if k not in several}, **given}, several)
    return expand_runs({**shared, **given}, {name: values for name, values in several.items() if name not in given})


@dataclass(frozen=True, eq=False, repr=False)
class TrainingResult(DisplayedResult):
    """Networks that were trained and evaluated under errors: from `train`.

    Attributes:
        folder: Where each network (.onnx), its record (.json) and its curve (.csv) lie.
        frame: One row per run: settings, accuracies, margins, seconds.
        curves: Accuracy per run, error rate and trial.
        sweep: The sweep of the memory that evaluated them.
        memory: That memory.
    """

    folder: Path
    frame: pl.DataFrame
    curves: pl.DataFrame
    sweep: str
    memory: str = "uniform"

    @property
    def networks(self) -> Mapping[str, Path]:
        """The trained ONNX files by run name."""
        return {name: self.folder / f"{name}.onnx" for name in self.frame["name"]}

    @property
    def title(self) -> str:
        """The folder."""
        return f"Networks in {self.folder.name or self.folder}"

    @property
    def headline(self) -> str:
        """Runs and the range of their accuracies."""
        accuracies = self.frame["validation_accuracy"]
        return f"{self.title}: {len(accuracies)} trained; validation accuracy {share_range(accuracies)}"

    @property
    def answer(self) -> str:
        """Which run is the most accurate under errors, and without."""
        means = dict(self.curves.group_by("id").agg(pl.col("accuracy").mean()).rows())
        under = max(self.frame.iter_rows(named=True), key=lambda row: float(means[row["id"]]))
        without = max(self.frame.iter_rows(named=True), key=lambda row: float(row["validation_accuracy"]))
        best = f"{under['name']}, {100 * means[under['id']]:.2f} % on average over {self.sweep}"
        if self.frame.height == 1:
            return f"{best}; {100 * without['validation_accuracy']:.2f} % without errors."
        return f"Best under errors: {best}. Without errors: {without['name']}, {100 * without['validation_accuracy']:.2f} %."

    @property
    def caption(self) -> str:
        """What the accuracies were measured on."""
        return "Accuracies of the exported networks. Curves are means over trials, with the weights in the evaluating memory."

    @property
    def summary(self) -> pl.DataFrame:
        """Name, loss, training flips, accuracies, margins after and before the output scale, and flips tolerated."""
        return self.frame.select(
            "name", "loss", "flips", "validation_accuracy", "test_accuracy", "margin_scaled", "margin", "output_flips"
        )

    def build_figure(self) -> Figure:
        """Plot loss and accuracy over the epochs, and accuracy over the memory's swept value: one line per run."""
        key, values = parse_sweep(self.sweep).key, self.curves["value"].unique().to_list()
        axis = condition_axis(key, values, parse_spec(self.memory).technology.conditions)
        return plot_training(self.title, self.folder, self.frame, self.curves, axis)
