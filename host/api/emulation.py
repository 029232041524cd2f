"""Accuracy and energy of a network on an unreliable memory, by trials or by prediction: `emulate`, `predict`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.emulator.tasks import Metric
from weakcell.host.analysis.prediction import PredictionStudy, measure_prediction, predict_study
from weakcell.host.board.inference.studies import Compute, find_board_network, make_executor
from weakcell.host.board.memory.studies import open_boards
from weakcell.host.datasets.registry import DataLike
from weakcell.host.report import prediction_report
from weakcell.host.report.captions import describe_result, format_metric_interval, study_title
from weakcell.host.report.displayed_result import DisplayedResult, count_points, share_range, wrap_result
from weakcell.host.report.study_figure import plot_study
from weakcell.host.report.style import STUDY_STYLE
from weakcell.host.study.arguments import MemoryLike, PlaceLike, resolve_arguments
from weakcell.host.study.fault_list import fault_table, save_faults
from weakcell.host.study.networks import ModelLike
from weakcell.host.study.replay import resolve_replay
from weakcell.host.study.results import StudyResult
from weakcell.host.study.results_folder import finished_identity, save_study
from weakcell.host.study.runner import Progress, run_study
from weakcell.host.study.sweep_values import SweepLike
from weakcell.memmodels.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def emulate(
    model: ModelLike = "digits-bnn",
    data: DataLike | None = None,
    *,
    memory: MemoryLike | None = None,
    sweep: SweepLike | None = None,
    place: PlaceLike | None = None,
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
    faults: str | Path | None = None,
    record_faults: bool = False,
    compute: Compute = "emulator",
    data_dir: str | Path | None = None,
    threads: int | None = None,
    on_trial: Callable[[Progress], None] | None = None,
) -> Emulation:
    """Run a network with its weights in an unreliable memory, at one operating point or over a sweep.

    Equal arguments give equal results, on any number of threads, and the same as `weakcell emulate`.

    Args:
        model: A shipped name (`digits-bnn`, `digits-qnn`, `fashion-bnn`), the path of an ONNX file, an `onnx.ModelProto` or a
            network from `load`.
        data: A data set's name, an `.npz` file with `x` and optionally `y`, an array of images (n, …), a tuple `(x, y)`, or a data
            set from `load_data`. None: the data set that the network was trained on, if it is known.
        memory: The memory of all weights: a SPEC such as `"sram-14nm:v_over_vmin=0.8"`, or a dict such as
            `{"name": "sram-14nm", "v_over_vmin": 0.8}`. None: `sram-14nm`, which without `sweep` is swept over its supply voltage.
        sweep: The condition to move and its values: `"ber=1e-5:1e-1:x10"`, `"vdd=0.6:0.8:0.05"`, or `{"vdd": [0.6, 0.7, 0.8]}`.
        place: Memories of layers, tensors or bits of them, by name: `{"conv1": "uniform:ber=0", "*@7": "uniform:ber=0"}`.
        trials: Passes over the data at each point. Trial t runs on die t.
        first_trial: The number of the first trial.
        die: Run all trials on this die.
        read_every: When weights are read again: `load` (once per trial), `batch`, `image`, `access` (at each use).
        batch: Images per read under `read_every="batch"`.
        seed: Names all dies and draws.
        images: Use only the first `images` images.
        sampling: `bits` draws flips of stored bits. `outputs` draws the outputs of binary layers, which has the same
            distribution.
        task: What the output means, as in `"classes:top=5"`. None: recognised from the network and the data.
        output: The output that is judged, by name. None: recognised.
        faults: A fault list to replay (`Emulation.save_faults`). It fixes memory, sweep, trials, seed and read policy.
        record_faults: Keep every flip, for `Emulation.fault_table` and `Emulation.save_faults`.
        compute: `board`: the board that holds all weights computes the images itself, and each output is compared with the
            emulator's. Virtual boards can with `board:virtual:rp2350-flash`.
        data_dir: The folder to search first for a data set's files.
        threads: Threads; None for all cores.
        on_trial: Called after each trial.

    Returns:
        The result. `.summary` has one row per point, `.frame` one per point and trial.

    Raises:
        UsageError: An argument cannot be understood, or a board cannot compute this study.
        InputError: The network or data are missing, or do not fit each other. `ModelError`: the network is not supported.
        BoardError: A board does not answer, or computed something else than the emulator.
        MemorySpecError: The memory is unknown, or a condition lies outside its valid range.
        Interrupted: Ctrl-C. Its attribute `result` holds the finished points.

    Examples:
        >>> import weakcell
        >>> result = weakcell.emulate("digits-bnn", memory="uniform", sweep={"ber": [0.01, 0.1]}, trials=2, images=50)
        >>> result.summary.select("sweep_value", "trials", "mean").rows()
        [(0.01, 2, 0.95), (0.1, 2, 0.49)]
        >>> data = weakcell.load_data("digits")
        >>> same = weakcell.emulate("digits-bnn", (data.x, data.y), memory={"name": "uniform", "ber": 0.01}, trials=2, images=50)
        >>> same.summary["mean"][0] == result.summary["mean"][0]
        True
    """
    options: dict[str, Any] = {
        "memory": memory, "sweep": sweep, "place": place, "trials": trials, "first_trial": first_trial, "die": die,
        "read_every": read_every, "batch": batch, "seed": seed, "images": images, "sampling": sampling, "task": task,
        "output": output,
    }  # fmt: skip
    memories = None
    if faults is None:
        resolved = resolve_arguments(model, data, data_dir, **options)
    else:  # a default does not contradict the list's header
        defaults = {name: parameter.default for name, parameter in inspect.signature(emulate).parameters.items()}
        given = {name: value for name, value in options.items() if value is not None and value != defaults[name]}
        resolved, memories = resolve_replay(Path(faults), model, data, data_dir, **given)
    listed = faults if faults is not None else "record_faults=True" if record_faults else None
    executor = None if find_board_network(resolved, compute, listed) is None else make_executor([resolved])
    with open_boards(resolved, None) as sessions:
        used = 1 if sessions else threads  # a board answers one trial at a time
        result = run_study(resolved, threads=used, on_trial=on_trial, memories=memories, record=record_faults, executor=executor)
    return wrap_result(Emulation, result)


def predict(
    model: ModelLike = "digits-bnn",
    data: DataLike | None = None,
    *,
    memory: MemoryLike | None = None,
    sweep: SweepLike | None = None,
    place: PlaceLike | None = None,
    read_every: Reads = DEFAULT_READS,
    samples: int | None = None,
    check_trials: int = 0,
    seed: int = 0,
    images: int | None = None,
    task: str | None = None,
    output: str | None = None,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> Prediction:
    """Predict the mean accuracy on a memory without injecting a fault: what infinitely many trials would give.

    Args:
        model: The network, as for `emulate`.
        data: Images and labels, as for `emulate`.
        memory: The memory, as for `emulate`. Its cells must err independently of each other.
        sweep: The condition to move, as for `emulate`.
        place: Memories of layers, tensors or bits, as for `emulate`.
        read_every: `load`, `batch` and `image` have the same mean; `access` differs for convolutions.
        samples: Draws per image. None: 10,000 to 100,000 over the number of images, at least 2.
        check_trials: Also run this many trials at each point, and compare.
        seed: Names all draws.
        images: Use only the first `images` images.
        task: What the output means, as for `emulate`.
        output: The output that is judged, as for `emulate`.
        data_dir: The folder to search first for a data set's files.
        threads: Threads; None for all cores.

    Returns:
        The prediction. `.frame` has one row per point: accuracy, half width of its 95 % interval, flip rate.

    Raises:
        UsageError: The memory's cells do not err independently, or an argument cannot be understood.
        InputError: The network or data are missing, or do not fit each other.
        MemorySpecError: The memory is unknown, or a condition lies outside its valid range.

    Examples:
        >>> import weakcell
        >>> prediction = weakcell.predict("digits-bnn", memory="uniform", sweep={"ber": [0.0, 0.1]}, images=50, samples=20)
        >>> prediction.frame["accuracy"].round(3).to_list()
        [0.98, 0.586]
    """
    resolved = resolve_arguments(
        model, data, data_dir, memory=memory, sweep=sweep, place=place, trials=max(1, check_trials), read_every=read_every,
        seed=seed, images=images, task=task, output=output,
    )  # fmt: skip
    predicted = predict_study(resolved, samples, threads)
    return wrap_result(Prediction, measure_prediction(predicted, threads) if check_trials else predicted)


class Emulation(DisplayedResult, StudyResult):
    """What trials found at each operating point: from `emulate`.

    `frame` has one row per point and trial, `summary` one per point: mean, 95 % interval, worst trial, energy.

    Examples:
        >>> import weakcell
        >>> result = weakcell.emulate("digits-bnn", memory="uniform:ber=0.01", trials=2, images=50)
        >>> result.frame.select("trial", "flips").rows()
        [(0, 579), (1, 618)]
    """

    figure_style = STUDY_STYLE

    @property
    def title(self) -> str:
        """Network, data and memory in one line."""
        return study_title(self.resolved)

    @property
    def headline(self) -> str:
        """Points, trials, and the range of the mean score."""
        study, metric, clean = self.resolved.study, self.resolved.questions.metric, self.resolved.questions.fault_free_score
        reference = "" if clean is None else f"; fault-free {metric.text(clean)}"
        state = "" if self.complete else f", interrupted: {len(self.resolved.points)} were asked for"
        points = len(self.outcomes) // max(1, study.trials)
        counts = f"{points} point{'s' * (points != 1)} x {study.trials} trial{'s' * (study.trials != 1)}{state}"
        return f"{self.title}: {counts}; {metric.words} {_score_range(self.summary, metric)}{reference}"

    @property
    def caption(self) -> str:
        """Read policy, dies, lifetimes, interval and basis, in sentences."""
        return describe_result(self)

    @cached_property
    def fault_table(self) -> pl.DataFrame:
        """Every flip: sweep_value, trial, read, tensor, element, bit, stored, read_back. UsageError if none were recorded.

        `element` counts in the order of the memory, in which a layer's weights are sorted by output channel: element e of a
        MatMul's weight (K, N) is weight[e % K, e // K] in the file. `bit` 0 is the least significant.
        """
        if self.faults is None:
            raise UsageError("The flips of this study", "they were not recorded", "Emulate with record_faults=True")
        return fault_table(self.faults)

    def save_faults(self, path: str | Path) -> Path:
        """Write every flip into a `.parquet` or `.csv` file that `emulate(faults=…)` replays; returns the path."""
        _ = self.fault_table
        save_faults(Path(path), self.faults or (), finished_identity(self))
        return Path(path)

    def save(self, out: str | Path, overwrite: bool = False) -> Path:
        """Write the files of `weakcell emulate --out` into a folder.

        Args:
            out: The folder; it is made if it is not there.
            overwrite: Replace the results of another study.

        Returns:
            The folder.

        Raises:
            OutputError: It cannot be written, or holds the results of another study.
        """
        return save_study(self, Path(out), overwrite)

    def build_figure(self) -> Figure:
        """Plot score and energy over the swept condition."""
        return plot_study(self)


class Prediction(DisplayedResult, PredictionStudy):
    """The predicted mean score at each operating point: from `predict`.

    `frame` has one row per point: accuracy, half width of its 95 % interval, flip rate, and trials if there were any.

    Examples:
        >>> import weakcell
        >>> weakcell.predict("digits-bnn", memory="uniform:ber=0.05", images=50, samples=20).frame.height
        1
    """

    @property
    def title(self) -> str:
        """Network, data and memory in one line."""
        return study_title(self.resolved, self.resolved.study.memory.name)

    @property
    def headline(self) -> str:
        """Points, and the range of the predicted score."""
        shares = self.summary["accuracy" if self.labelled else "changed"]
        words = "accuracy" if self.labelled else "changed answers"
        return f"{self.title}: {count_points(len(shares))}; predicted {words} {share_range(shares)}"

    @property
    def caption(self) -> str:
        """What was predicted, from how many draws, and what the interval covers."""
        return prediction_report.describe_prediction(self)

    @property
    def summary(self) -> pl.DataFrame:
        """The columns of `frame` that differ between points."""
        shown = ("sweep_value", "memory", "accuracy", "changed", "half_width", "flip_rate", "measured", "low", "high", "outside")
        return self.frame.select([name for name in shown if name in self.frame.columns])

    def build_figure(self) -> Figure:
        """Plot the predicted curve, and measured points if there are any."""
        return prediction_report.plot_prediction(self)


def _score_range(summary: pl.DataFrame, metric: Metric) -> str:
    """Return the lowest and the highest mean; of one point its mean and interval."""
    means = summary["mean"].to_numpy()
    if len(means) == 1:
        interval = format_metric_interval(metric, summary["low"][0], summary["high"][0])
        return f"{metric.text(means[0])}{f' ({interval})' if interval else ''}"
    return "none" if not len(means) else f"{metric.text(np.min(means))} … {metric.text(np.max(means))}"
