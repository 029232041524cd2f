"""Class answers: one per image, token or pixel, from scores, from one logit, or already made by the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.tasks.checks import check_counts, class_numbers
from weakcell.emulator.tasks.metric import METRICS, Metric
from weakcell.emulator.tasks.task import Judgement, Task, real

Array = npt.NDArray[Any]
Form = Literal["scores", "logit", "labels"]

_MOST_LISTED = 1 << 16
"""Accuracies per class are listed for so many classes at most."""


@dataclass(frozen=True)
class ClassTask(Task):
    """Answers that are classes.

    spec: of the output. form: `scores` (the class is the place of the largest along `axis`), `logit` (one number; class 1 if it
    exceeds `threshold`) or `labels` (the output is the class). axis: of the classes or of the k best, counted in the output without
    its batch and without axes of size 1; None where there is none. classes: how many there are; None if that is not known.
    positions: the shape of an image's answers, () for one answer per image. top: a label is right among so many best answers.
    ignore: a label that is not judged.
    """

    name: ClassVar[str] = "classes"

    spec: ValueSpec
    form: Form
    axis: int | None
    classes: int | None
    positions: tuple[int, ...] = ()
    top: int = 1
    threshold: float = 0.0
    ignore: int | None = None
    explicit: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        """What one answer is about."""
        return "image"

    @property
    def text(self) -> str:
        """The task as `--task` takes it."""
        options = list(self.explicit)
        if self.form == "logit" and self.threshold != 0.0:
            options.append(f"threshold={self.threshold:g}")
        if self.top > 1:
            options.append(f"top={self.top}")
        if self.ignore is not None:
            options.append(f"ignore={self.ignore}")
        if getattr(self, "score", "mean_iou") != "mean_iou":
            options.append("score=accuracy")
        return f"{self.name}:{','.join(options)}" if options else self.name

    @property
    def words(self) -> str:
        """What the classes are made from, for captions."""
        if self.form == "scores":
            how = f"the largest of {self.classes} scores" if self.top == 1 else f"the {self.top} largest of {self.classes} scores"
        elif self.form == "logit":
            how = f"class 1 where it exceeds {self.threshold:g}"
        else:
            how = "already the class" if self.top == 1 else f"already the {self.top} best classes"
            how += f", one of {self.classes}" if self.classes else ""
        each = "" if not self.positions else f", one per {self.noun}"
        return f"{self.name} ({how}{each})"

    def metric(self, labelled: bool) -> Metric:
        """Return accuracy, or without labels the share of unchanged answers."""
        return METRICS["accuracy" if labelled else "unchanged"]

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────

    def answers(self, *outputs: Array) -> Array:
        """(n, *positions) class numbers; with `top` > 1 a last axis holds the best classes, best first.

        The lowest class wins at a tie; a score that is NaN never wins, and a logit that is NaN means class 0.
        """
        (x,) = outputs
        x = x.reshape(len(x), *(n for n in x.shape[1:] if n != 1))
        if self.form == "logit":
            with np.errstate(invalid="ignore"):
                made: Array = (real(x, self.spec) > np.float32(self.threshold)).astype(np.int8)
            return made
        if self.form == "labels":
            return self._given(x)
        axis = 1 if self.axis is None else self.axis + 1
        if x.ndim <= axis:
            x = x.reshape(len(x), -1)
        if x.dtype.kind == "f" and np.isnan(x).any():
            x = np.where(np.isnan(x), -np.inf, x)
        if self.top == 1:
            best: Array = np.argmax(x, axis=axis)
            return best.astype(np.int32) if self.positions else best
        return _largest(np.moveaxis(x, axis, -1), self.top)

    def _given(self, x: Array) -> Array:
        """Labels as the network writes them; what is no number of a class is class -1."""
        if x.dtype.kind == "f":
            x = np.where(np.isfinite(x), np.rint(x), -1.0)
        made: Array = x.astype(np.int64)
        if self.axis is not None:
            made = np.moveaxis(made, self.axis + 1, -1)[..., : self.top]
            made = made[..., 0] if self.top == 1 else made
        return made

    # ── labels and judgement ────────────────────────────────────────────────────────────────────────

    def labels(self, given: Any, images: int) -> npt.NDArray[np.int64]:
        """(n, *positions) class numbers without axes of size 1."""
        kept = check_counts(np.asarray(given), images, self.output, self.positions, self.noun)
        return class_numbers(kept, self.classes, self.output, self.ignore)

    def judge(self, answers: Array, labels: Array | None, clean: Array) -> Judgement:
        """Compute accuracy, accuracy per class, and the share of changed answers."""
        changed = float(np.mean(self.best(answers) != self.best(clean)))
        if labels is None:
            return Judgement(None, changed)
        right, held = self.right(answers, labels), labels
        if self.ignore is not None:
            judged = labels != self.ignore
            right, held = right[judged], labels[judged]
        return Judgement(float(right.mean()), changed, {}, self._per_class(right.reshape(-1), held.reshape(-1)))

    def best(self, answers: Array) -> Array:
        """The best answer of each image, token or pixel."""
        return answers[..., 0] if self.top > 1 else answers

    def right(self, answers: Array, labels: Array) -> npt.NDArray[np.bool_]:
        """Whether each answer, or one of the best ones, is the label."""
        found: npt.NDArray[np.bool_] = answers == labels if self.top == 1 else (answers == labels[..., None]).any(axis=-1)
        return found

    def share_right(self, answers: Array, labels: Array) -> npt.NDArray[np.float64]:
        """(n,) the share of right answers of each image; 0 where none of them is judged."""
        right = self.right(answers, labels).reshape(len(labels), -1)
        judged = np.ones(right.shape, bool) if self.ignore is None else (labels != self.ignore).reshape(right.shape)
        counts = judged.sum(axis=1)
        made: npt.NDArray[np.float64] = (right & judged).sum(axis=1) / np.maximum(counts, 1)
        return made

    def share_same(self, answers: Array, clean: Array) -> npt.NDArray[np.float64]:
        """(n,) the share of answers of each image that are those of the fault-free network."""
        made: npt.NDArray[np.float64] = (self.best(answers) == self.best(clean)).reshape(len(clean), -1).mean(axis=1)
        return made

    def weights(self, labels: Array) -> npt.NDArray[np.float64]:
        """(n,) what each image counts in the accuracy, 1 on average: images differ in how many labels are judged."""
        if self.ignore is None:
            return np.ones(len(labels))
        counts = (labels != self.ignore).reshape(len(labels), -1).sum(axis=1)
        made: npt.NDArray[np.float64] = counts / counts.mean()
        return made

    def _per_class(self, right: Array, labels: Array) -> tuple[float, ...]:
        classes = int(labels.max()) + 1 if labels.size else 0
        if classes > _MOST_LISTED:
            return ()
        counts = np.bincount(labels, minlength=classes)
        hits = np.bincount(labels, weights=right, minlength=classes)
        with np.errstate(invalid="ignore"):
            return tuple((hits / counts).tolist())


@dataclass(frozen=True)
class LogitTask(ClassTask):
    """One logit or probability per image, or several that are judged each on its own."""

    name: ClassVar[str] = "logit"

    @property
    def noun(self) -> str:
        """An answer is about the image, or one of its logits."""
        return "logit" if self.positions else "image"


@dataclass(frozen=True)
class LabelTask(ClassTask):
    """The network's output is the class."""

    name: ClassVar[str] = "labels"


@dataclass(frozen=True)
class TokenTask(ClassTask):
    """A class for each token of a sequence."""

    name: ClassVar[str] = "tokens"

    @property
    def noun(self) -> str:
        """An answer is about a token."""
        return "token"


@dataclass(frozen=True)
class PixelTask(ClassTask):
    """A class for each pixel of a map: mean IoU and accuracy over all pixels of the data set.

    The IoU of a class is the number of pixels where label and answer are this class, over those where either is; the mean is over
    the classes that labels or answers name.
    """

    name: ClassVar[str] = "pixels"

    score: str = "mean_iou"

    @property
    def noun(self) -> str:
        """An answer is about a pixel."""
        return "pixel"

    def metric(self, labelled: bool) -> Metric:
        """Return mean IoU or accuracy of pixels, or without labels the share of unchanged pixels."""
        return METRICS[self.score if labelled else "unchanged"]

    def judge(self, answers: Array, labels: Array | None, clean: Array) -> Judgement:
        """Compute accuracy, mean IoU over the data set, and the share of changed pixels."""
        made = super().judge(answers, labels, clean)
        if labels is None:
            return made
        return Judgement(made.accuracy, made.changed, {"mean_iou": self._mean_iou(answers, labels)}, made.class_accuracy)

    def _mean_iou(self, answers: Array, labels: Array) -> float:
        judged = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        said, meant = answers[judged].astype(np.int64), labels[judged]
        if self.classes is None:  # number the classes that occur
            named, both = np.unique(np.concatenate([said, meant]), return_inverse=True)
            classes, said, meant = len(named), both[: said.size], both[said.size :]
        else:
            classes = self.classes
        hits = np.bincount(meant[said == meant], minlength=classes)
        either = np.bincount(said, minlength=classes) + np.bincount(meant, minlength=classes) - hits
        return float((hits[either > 0] / either[either > 0]).mean())


def _largest(x: Array, count: int) -> Array:
    """The places of the `count` largest along the last axis, the largest first, the lower place first at a tie."""
    wide = x if x.dtype.kind == "f" else x.astype(np.int64)
    made: Array = np.argsort(-wide, axis=-1, kind="stable")[..., :count]
    return made
