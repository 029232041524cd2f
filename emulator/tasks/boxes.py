"""Boxes: the output of a detector, judged by mean average precision.

    layout     output per image                                  made by
    yolov5     [A, 5 + C]: cx, cy, w, h, objectness, scores      YOLOv5, YOLOv7; score of a class: objectness times score
    yolov8     [4 + C, A] or [A, 4 + C]: cx, cy, w, h, scores    YOLOv8, YOLO11
    end2end    [K, 6]: x1, y1, x2, y2, score, class              YOLOv10 and networks that suppress boxes themselves
    ssd        [A, 4]: corners, and a second output [A, C]       SSD with decoded boxes; class 0 of the scores is the background

Labels are (n, M, 5): class, x1, y1, x2, y2, in the units of the output; rows of class -1 fill up images with fewer boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.tasks.checks import are_integers, shape_text
from weakcell.emulator.tasks.detection import Floats, average_precisions, same_detections, suppress
from weakcell.emulator.tasks.metric import METRICS, Metric
from weakcell.emulator.tasks.task import Judgement, Task, real
from weakcell.memmodels.errors import InputError, UsageError

Array = npt.NDArray[Any]
Layout = Literal["yolov5", "yolov8", "end2end", "ssd"]
Corners = Literal["cxcywh", "xyxy", "yxyx"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
CORNERS: tuple[str, ...] = get_args(Corners)

_MOST_CANDIDATES, _MOST_KEPT = 1000, 300
"""Detections of an image before and after suppression, the ones of highest score."""

_SHOWN = 0.25
"""Detections of at least this score count when images are compared with the fault-free ones."""


@dataclass(frozen=True)
class BoxTask(Task):
    """Boxes with a class and a score.

    Attributes:
        spec: of the output.
        layout: what its numbers mean.
        by_column: whether the numbers of a box lie on the first axis, [4 + C, A].
        corners: how a box is written.
        classes: how many there are; None for `end2end`, which does not say it.
        scores, scores_spec: the output with the scores of an `ssd` layout, "" otherwise.
        confidence: the lowest score that is a detection.
        overlap: the largest overlap of two detections of one class.
        score: the metric that serves as the score, `mean_ap` or `mean_ap_50`.
    """

    name: ClassVar[str] = "boxes"

    spec: ValueSpec
    layout: Layout
    by_column: bool
    corners: Corners
    classes: int | None
    scores: str = ""
    scores_spec: ValueSpec | None = None
    confidence: float = 0.001
    overlap: float = 0.7
    score: str = "mean_ap"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The judged output, and that of the scores if it is separate."""
        return (self.output, self.scores) if self.scores else (self.output,)

    @property
    def text(self) -> str:
        """The task as `--task` takes it."""
        usual = "xyxy" if self.layout in ("end2end", "ssd") else "cxcywh"
        options = [f"layout={self.layout}"]
        options += [f"corners={self.corners}"] if self.corners != usual else []
        options += [f"scores={self.scores}"] if self.scores else []
        options += [f"confidence={self.confidence:g}"] if self.confidence != 0.001 else []
        options += [f"overlap={self.overlap:g}"] if self.overlap != 0.7 else []
        options += [f"score={self.score}"] if self.score != "mean_ap" else []
        return f"{self.name}:{','.join(options)}"

    @property
    def words(self) -> str:
        """What the boxes are made from, for captions."""
        kinds = "" if self.classes is None else f" of {self.classes} {'class' if self.classes == 1 else 'classes'}"
        return f"boxes{kinds} ({self.layout}, scores from {self.confidence:g}, overlaps up to {self.overlap:g})"

    def metric(self, labelled: bool) -> Metric:
        """Return mAP, or without labels the share of images whose detections stay the same."""
        return METRICS[self.score if labelled else "unchanged"]

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────

    def answers(self, *x: Array) -> list[Floats]:
        """Return the detections of each image, (k, 6): x1, y1, x2, y2, score, class. A score that is NaN is none."""
        table = real(x[0], self.spec).astype(np.float64)
        table = table.reshape(len(table), *self._sizes())
        if self.by_column:
            table = table.transpose(0, 2, 1)
        with np.errstate(invalid="ignore", over="ignore"):
            if self.layout == "end2end":
                return [self._given(image) for image in table]
            boxes = self._corners(table[..., :4])
            if self.layout == "ssd":
                assert self.scores_spec is not None
                scores = real(x[1], self.scores_spec).astype(np.float64).reshape(len(table), table.shape[1], -1)[..., 1:]
            else:
                scores = table[..., 5:] * table[..., 4:5] if self.layout == "yolov5" else table[..., 4:]
            return [self._best(*image) for image in zip(boxes, scores, strict=True)]

    def _sizes(self) -> tuple[int, int]:
        sizes = tuple(n for n in self.spec.shape if n != 1)
        if len(sizes) == 2:
            return sizes[0], sizes[1]
        return self.spec.shape[-2], self.spec.shape[-1]

    def _corners(self, boxes: Floats) -> Floats:
        """Return boxes as x1, y1, x2, y2; one with a number that is not finite has no area."""
        if self.corners == "cxcywh":
            half = boxes[..., 2:] / 2
            boxes = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)
        elif self.corners == "yxyx":
            boxes = boxes[..., [1, 0, 3, 2]]
        finite: Floats = np.where(np.isfinite(boxes).all(axis=-1, keepdims=True), boxes, 0.0)
        return finite

    def _given(self, table: Floats) -> Floats:
        kept = table[table[:, 4] >= max(self.confidence, np.finfo(np.float64).tiny)]
        found = np.concatenate([self._corners(kept[:, :4]), kept[:, 4:5], np.rint(kept[:, 5:6])], axis=1)
        return found[np.argsort(-found[:, 4], kind="stable")][:_MOST_KEPT]

    def _best(self, boxes: Floats, scores: Floats) -> Floats:
        place, number = np.nonzero(scores >= self.confidence)
        held = scores[place, number]
        order = np.argsort(-held, kind="stable")[:_MOST_CANDIDATES]
        place, number, held = place[order], number[order], held[order]
        kept = suppress(boxes[place], held, number, self.overlap)[:_MOST_KEPT]
        return np.column_stack([boxes[place[kept]], held[kept], number[kept]])

    def join(self, parts: Sequence[list[Floats]]) -> list[Floats]:
        """Return the detections of all images, from those of consecutive chunks."""
        return [image for part in parts for image in part]

    # ── labels and judgement ────────────────────────────────────────────────────────────────────────

    def labels(self, given: Any, images: int) -> list[Floats]:
        """Return the boxes of each image, (m, 5): class, x1, y1, x2, y2."""
        table = np.asarray(given)
        asked, do = f"Labels of the output {self.output!r}", "Bring labels (n, M, 5): class, x1, y1, x2, y2, class -1 for no box"
        if table.ndim != 3 or table.shape[2] != 5 or len(table) != images:
            raise InputError(asked, f"they have shape {shape_text(table)}, and there are {images} images", do)
        numbers = table[..., 0]
        if not are_integers(numbers) or not np.isfinite(table.astype(np.float64)).all():
            raise InputError(asked, "a class is no whole number, or a corner is not finite", do)
        held = table[numbers >= 0].astype(np.float64)
        if not len(held):
            raise InputError(asked, "they hold no box", do)
        low, high = int(numbers.min()), int(numbers.max())
        if low < -1 or (self.classes is not None and high >= self.classes):
            known = "-1 means no box" if self.classes is None else f"the output has {self.classes} classes, 0 … {self.classes - 1}"
            raise InputError(f"{asked}, classes {low} … {high}", known, do)
        if np.any(held[:, 3:] < held[:, 1:3]):
            raise InputError(asked, "a box ends before it begins (x2 < x1 or y2 < y1)", do)
        return [image[image[:, 0] >= 0].astype(np.float64) for image in table]

    def check_clean(self, clean: list[Floats], labels: list[Floats] | None) -> None:
        """Refuse scores that are no probabilities, and labels in other units than the boxes."""
        found = np.concatenate(clean)
        if len(found) and found[:, 4].max() > 1.001:
            seen = f"a score is {found[:, 4].max():.3g}, and scores of {self.layout} lie between 0 and 1"
            raise UsageError(f"Judging the output {self.output!r} as {self.words}", seen, "Give another layout, or export scores")
        if labels is None or not len(found):
            return
        given, boxes = np.concatenate(labels)[:, 1:], found[:, :4]
        shares = given.max() <= 1.5, np.median(np.abs(boxes).max(axis=1)) <= 1.5  # whether each is in shares of the image
        if shares[0] != shares[1]:
            raise InputError(
                f"Labels of the output {self.output!r}",
                f"their corners reach {given.max():.3g}, those of the fault-free boxes {np.abs(boxes).max():.3g}",
                "Bring labels in the units of the output: pixels, or shares of the image",
            )

    def judge(self, answers: list[Floats], labels: list[Floats] | None, clean: list[Floats]) -> Judgement:
        """Return mAP over the labelled classes, and the share of images whose detections of score 0.25 or more changed."""
        pairs = zip(answers, clean, strict=True)
        same = [same_detections(a[a[:, 4] >= _SHOWN], b[b[:, 4] >= _SHOWN]) for a, b in pairs]
        changed = 1.0 - float(np.mean(same))
        if labels is None:
            return Judgement(None, changed)
        numbers = sorted({int(number) for image in labels for number in image[:, 0]})
        precisions = average_precisions(answers, labels, numbers)
        return Judgement(None, changed, {"mean_ap": float(precisions.mean()), "mean_ap_50": float(precisions[:, 0].mean())})
