"""Values: a regression, or any output whose numbers are compared as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.tasks.checks import check_counts
from weakcell.emulator.tasks.metric import METRICS, Metric
from weakcell.emulator.tasks.task import Judgement, Task, real
from weakcell.memmodels.errors import InputError

Array = npt.NDArray[Any]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ValueTask(Task):
    """Numbers, `positions` of them per image, judged by their errors against labels and by their changes.

    mae, mse: mean absolute and mean squared error over all numbers. mean_change: the mean absolute difference from the fault-free
    output, divided by the standard deviation of the fault-free output over the data set; where that is 0, not divided.
    A number that faults turn into NaN or infinity counts as the largest float32.
    """

    name: ClassVar[str] = "values"

    spec: ValueSpec
    positions: tuple[int, ...] = ()
    score: str = "mae"

    @property
    def text(self) -> str:
        """The task as `--task` takes it."""
        return self.name if self.score == "mae" else f"{self.name}:score={self.score}"

    @property
    def words(self) -> str:
        """What the values are made from, for captions."""
        count = int(np.prod(self.positions))
        return f"values ({'one number' if count == 1 else f'{count} numbers'} per image)"

    def metric(self, labelled: bool) -> Metric:
        """Return the error, or without labels the mean change."""
        return METRICS[self.score if labelled else "mean_change"]

    def answers(self, *outputs: Array) -> Array:
        """(n, *positions) the output as real numbers."""
        (x,) = outputs
        return real(x.reshape(len(x), *(n for n in x.shape[1:] if n != 1)), self.spec)

    def labels(self, given: Any, images: int) -> npt.NDArray[np.float64]:
        """(n, *positions) float64; InputError if one is not finite."""
        made: npt.NDArray[np.float64] = check_counts(np.asarray(given), images, self.output, self.positions, "value").astype(
            np.float64
        )
        if not np.isfinite(made).all():
            raise InputError(f"Labels of the output {self.output!r}", "some are NaN or infinite", "Bring finite numbers")
        return made

    def judge(self, answers: Array, labels: Array | None, clean: Array) -> Judgement:
        """Compute mean absolute and mean squared error, and the mean change."""
        found, right = _finite(answers), _finite(clean)
        spread = float(right.std()) or 1.0
        metrics = {"mean_change": float(np.abs(found - right).mean()) / spread}
        if labels is not None:
            errors = found - labels
            metrics |= {"mae": float(np.abs(errors).mean()), "mse": float(np.square(errors).mean())}
        return Judgement(None, float(np.mean(found != right)), metrics)


def _finite(x: Array) -> npt.NDArray[np.float64]:
    made: npt.NDArray[np.float64] = np.nan_to_num(x.astype(np.float64), nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST)
    return made
