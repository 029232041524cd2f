"""What every task can do: turn an output into answers, check labels, and judge answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.tasks.metric import Metric

Array = npt.NDArray[Any]
Answers = Any
"""What a task makes of an output: an array with images along its first axis, or whatever else its `join` and `judge` understand."""


@dataclass(frozen=True)
class Judgement:
    """What the answers of one pass over the data are worth.

    accuracy: the share of right answers, None without labels or where a task knows no right and wrong.
    changed: the share of answers that differ from those of the fault-free network.
    metrics: further metrics by name (`weakcell.emulator.tasks.metric.COLUMNS`).
    class_accuracy: the accuracy of each class from 0, NaN for a class that no label names; empty without labels.
    """

    accuracy: float | None
    changed: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    class_accuracy: tuple[float, ...] = ()

    def score(self, metric: Metric) -> float:
        """The value of a metric; KeyError if the task does not measure it."""
        if metric.name == "unchanged":
            return 1.0 - self.changed
        if metric.name == "accuracy" and self.accuracy is not None:
            return self.accuracy
        return self.metrics[metric.name]


@dataclass(frozen=True)
class Task(ABC):
    """How one output of a network is judged. Immutable, and small enough to travel to a worker.

    output: the name of the output. A task judges per trial, not per image: `judge` gets the answers of the whole data set, so that
    metrics that are no mean over images (mean IoU, mAP) are possible.
    """

    name: ClassVar[str]
    output: str

    @property
    @abstractmethod
    def text(self) -> str:
        """The task as `--task` takes it: NAME, or NAME:option=value,…"""

    @property
    @abstractmethod
    def words(self) -> str:
        """What is judged, for a caption: "classes (the largest of 10 scores)"."""

    @abstractmethod
    def metric(self, labelled: bool) -> Metric:
        """The metric that serves as the score."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that `answers` takes, `output` first."""
        return (self.output,)

    @abstractmethod
    def answers(self, *x: Array) -> Answers:
        """What some images are answered. x: each of `outputs` (n, *shape) in ONNX order and dtype."""

    def reader(self, labels: Any) -> Callable[..., Answers]:
        """Return what turns consecutive chunks of the outputs into answers, from the first image on.

        labels: from `labels`; None without. A task whose answers depend on labels overrides it.
        """
        return self.answers

    def labels_from(self, inputs: Mapping[str, Array]) -> Any:
        """Return the labels that the inputs (n, …) imply, in any form that `labels` takes; None if they imply none."""
        return None

    def join(self, parts: Sequence[Answers]) -> Answers:
        """The answers of all images from those of consecutive chunks."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @abstractmethod
    def labels(self, given: Any, images: int) -> Any:
        """Check labels and bring them into the form that `judge` takes.

        Args:
            given: the data's labels: an array as the file has it.
            images: how many images there are.

        Raises:
            InputError: they do not fit the output.
        """

    def check_clean(self, clean: Answers, labels: Any) -> None:
        """Compare the fault-free answers with the labels that `labels` made, or None; an error if they are of different kinds."""
        return

    def first(self, labels: Any, images: int) -> Any:
        """The labels of the first `images` images, from those that `labels` made."""
        return labels[:images]

    @abstractmethod
    def judge(self, answers: Answers, labels: Any, clean: Answers) -> Judgement:
        """Judge the answers of all images.

        Args:
            answers: of one pass.
            labels: from `labels`; None without.
            clean: the answers of the fault-free network.
        """


def real(x: Array, spec: ValueSpec) -> Array:
    """An output as real numbers: codes (n, *shape) times their scale, floats as they are."""
    if spec.kind == "float":
        return x
    scale = np.asarray(spec.scale, np.float32)
    if scale.ndim:
        scale = scale.reshape(-1, *[1] * (x.ndim - 2))
    made: Array = (x.astype(np.float32) - np.float32(spec.zero_point)) * scale
    return made
