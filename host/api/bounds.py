"""Which bits matter, how far answers are from changing, and whether the bounds hold: `rank`, `margins`, `validate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from weakcell.emulator.faults.read_policy import DEFAULT_READS, Reads
from weakcell.emulator.tasks import Asked
from weakcell.host.analysis.margins import MarginReport, report_margins
from weakcell.host.analysis.ranking import By, Ranking, rank_parts
from weakcell.host.board.memory.studies import open_boards
from weakcell.host.datasets.registry import DataLike
from weakcell.host.report import validation_report
from weakcell.host.report.captions import study_title
from weakcell.host.report.displayed_result import DisplayedResult, wrap_result
from weakcell.host.report.style import STYLE
from weakcell.host.study.arguments import MemoryLike, PlaceLike, build_study, resolve_arguments
from weakcell.host.study.networks import ModelLike
from weakcell.host.study.sweep_values import SweepLike
from weakcell.host.study.workload import open_workload
from weakcell.host.validation import trials as validation_trials
from weakcell.host.validation.accuracy_curve import AccuracyCurve, compare_with_prediction
from weakcell.host.validation.stress import resolve_validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rank(
    model: ModelLike = "digits-bnn",
    data: DataLike | None = None,
    *,
    memory: MemoryLike = "uniform:ber=0.01",
    by: By = "layer",
    samples: int | None = None,
    check_trials: int = 0,
    read_every: Reads = DEFAULT_READS,
    seed: int = 0,
    images: int | None = None,
    task: str | None = None,
    output: str | None = None,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> Ranking:
    """Rank layers or bits by the accuracy that they cost per flip.

    Each part lives in the memory alone while all others are safe. Its loss is predicted without injecting a fault.

    Args:
        model: The network, as for `emulate`.
        data: Images and labels, as for `emulate`.
        memory: The memory that each part lives in, as for `emulate`. Its cells must err independently of each other.
        by: What the parts are: `layer`, `bit` (bit positions) or `layer-bit`.
        samples: Draws per image, as for `predict`.
        check_trials: Also run this many trials per part, and correlate.
        read_every: When the trials read weights again, as for `emulate`.
        seed: Names all draws.
        images: Use only the first `images` images.
        task: What the output means, as for `emulate`.
        output: The output that is judged, as for `emulate`.
        data_dir: The folder to search first for a data set's files.
        threads: Threads; None for all cores.

    Returns:
        The parts, the most expensive per flip first. `.frame` has one row per part.

    Raises:
        UsageError: The memory's cells do not err independently, or an argument cannot be understood.
        InputError: The network or data are missing, or do not fit each other.
        MemorySpecError: The memory is unknown, or a condition lies outside its valid range.

    Examples:
        >>> import weakcell
        >>> ranking = weakcell.rank("digits-bnn", memory="uniform:ber=0.05", images=50, samples=20)
        >>> ranking.frame.select("part", "bits").rows()
        [('/conv1/Conv', 288), ('/conv2/Conv', 9216), ('/dense3/Gemm', 49152), ('/dense4/Gemm', 960)]
    """
    resolved = resolve_arguments(
        model, data, data_dir, memory=memory, read_every=read_every, seed=seed, images=images, task=task, output=output
    )
    return rank_parts(resolved, by, samples=samples, trials=check_trials, threads=threads)


def margins(
    model: ModelLike = "digits-bnn",
    data: DataLike | None = None,
    *,
    certify: int = 0,
    images: int | None = None,
    task: str | None = None,
    output: str | None = None,
    data_dir: str | Path | None = None,
) -> MarginReport:
    """Measure how far a network's answers are from changing, from one fault-free pass.

    Args:
        model: The network, as for `emulate`. Its answer must be the largest score of its first output.
        data: Images and labels, as for `emulate`.
        certify: Flips anywhere in the network that a certificate is tried for (binarized networks only); 0 for no certificates.
        images: Use only the first `images` images.
        task: What the output means, as for `emulate`.
        output: The output that is judged, as for `emulate`.
        data_dir: The folder to search first for a data set's files.

    Returns:
        The margins. `.frame` has one row per image, `.means` the means over images, `.means.neurons` hidden layers.

    Raises:
        UsageError: The output is not judged by its largest score, or no certificate exists for this network.
        InputError: The network or data are missing, or do not fit each other.

    Examples:
        >>> import weakcell
        >>> report = weakcell.margins("digits-bnn", images=50)
        >>> report.means.ties, report.frame.select("margin", "exact").row(0)
        (0, (78.0, 38))
    """
    folder = None if data_dir is None else Path(data_dir)
    return report_margins(open_workload(model, data, images, folder, asked=Asked(task, output)), certify)


def validate(
    model: ModelLike = "digits-bnn",
    data: DataLike | None = None,
    *,
    memory: MemoryLike = "uniform:ber=0.01",
    place: PlaceLike | None = None,
    sweep: SweepLike | None = None,
    stress: bool = False,
    trials: int = 10,
    first_trial: int = 0,
    die: int | None = None,
    read_every: Reads = DEFAULT_READS,
    batch: int = 256,
    seed: int = 0,
    images: int | None = None,
    task: str | None = None,
    output: str | None = None,
    hidden: bool = False,
    predict: bool = True,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> Validation:
    """Check the margin bounds against every flip of a memory: each faulty run is compared with its fault-free twin.

    Args:
        model: The network, as for `emulate`.
        data: Images and labels, as for `emulate`.
        memory: The memory of all weights, as for `emulate`.
        place: Memories of layers, tensors or bits, as for `emulate`.
        sweep: The condition to move, as for `emulate`.
        stress: Run every image at the error rates that bring its own flips near its own bound (memories with a `ber`).
        trials: Passes over the data at each point.
        first_trial: The number of the first trial.
        die: Run all trials on this die.
        read_every: When weights are read again, as for `emulate`.
        batch: Images per read under `read_every="batch"`.
        seed: Names all dies and draws.
        images: Use only the first `images` images.
        task: What the output means, as for `emulate`.
        output: The output that is judged, as for `emulate`.
        hidden: Check hidden neurons too.
        predict: Also predict the accuracy of every point, for `.curve`.
        data_dir: The folder to search first for a data set's files.
        threads: Threads; None for all cores.

    Returns:
        The validation. `.violation_count` counts violations, which must be 0; `.summary` has one row per check.

    Raises:
        UsageError: A flip could reach what no bound speaks of, or an argument cannot be understood.
        InputError: The network or data are missing, or do not fit each other.
        MemorySpecError: The memory is unknown, or a condition lies outside its valid range.

    Examples:
        >>> import weakcell
        >>> validation = weakcell.validate("digits-bnn", memory="uniform:ber=0.02", trials=2, images=50, predict=False)
        >>> validation.violation_count, validation.summary["pairs"].to_list()
        (0, [100, 100, 100])
    """
    study = build_study(
        model, data, memory=memory, place=place, sweep=sweep, trials=trials, die=die, read_every=read_every, batch=batch,
        seed=seed, images=images, task=task, output=output,
    )  # fmt: skip
    folder = None if data_dir is None else Path(data_dir)
    resolved, only = resolve_validation(study, folder, stress=stress, model=model, data=data)
    with open_boards(resolved, None) as sessions:
        used = 1 if sessions else threads
        found = validation_trials.validate_study(resolved, first=first_trial, hidden=hidden, threads=used, only=only)
    return wrap_result(Validation, found, curve=compare_with_prediction(found, threads) if predict else None)


@dataclass(frozen=True, eq=False, repr=False)
class Validation(DisplayedResult, validation_trials.Validation):
    """Margin bounds checked against every flip: from `validate`.

    Attributes:
        curve: Predicted and measured accuracy of the points that ran on all images; None without prediction.

    Examples:
        >>> import weakcell
        >>> weakcell.validate("digits-bnn", memory="uniform:ber=0.02", trials=2, images=50, predict=False).violation_count
        0
    """

    figure_style: ClassVar[dict[str, Any]] = {**STYLE, "axes.grid": False}

    curve: AccuracyCurve | None = None

    @property
    def title(self) -> str:
        """Network, data and memory in one line."""
        return study_title(self.resolved, self.resolved.study.memory.name)

    @property
    def headline(self) -> str:
        """Checks, pairs and violations."""
        pairs = sum(check.pairs for check in self.checks)
        return f"{self.title}: {len(self.checks)} checks, {pairs:,} pairs, {self.violation_count:,} violations"

    @property
    def caption(self) -> str:
        """What a pair is and what each check claims."""
        return validation_report.describe_validation(self)

    @property
    def frame(self) -> pl.DataFrame:
        """Pairs by point, check, bound, flips q and outcome."""
        return validation_report.tally_frame(self)

    @property
    def summary(self) -> pl.DataFrame:
        """One row per check: pairs, non-vacuous, near, changed, tied, violations."""
        names = ("check", "pairs", "non_vacuous", "near", "violations", "changed", "tied", "tied_away")
        return pl.DataFrame([{name: getattr(check, name) for name in names} for check in self.checks])

    def build_figure(self) -> Figure:
        """Plot the margins, the accuracies, and the flips of each check over its bound."""
        return validation_report.plot_validation(self, self.curve)
