"""Perplexity: how well a language model foretells the next token of a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.tasks.checks import check_counts, class_numbers
from weakcell.emulator.tasks.metric import METRICS, Metric
from weakcell.emulator.tasks.task import Judgement, Task, real

Array = npt.NDArray[Any]

IGNORED = -100
"""The label of a token that is not judged, as in PyTorch's cross-entropy."""

_LARGEST = math.log(float(np.finfo(np.float32).max))
"""The loss in nats of a token whose scores are not finite; a mean loss above it counts as this."""

_ANSWER = np.dtype([("best", np.int32), ("loss", np.float64)])


@dataclass(frozen=True)
class PerplexityTask(Task):
    """Scores of the next token at each position of a sequence.

    The loss of a position is -ln softmax(scores)[label]. Perplexity is exp(mean loss) over all positions that are judged in the
    data set (Jelinek et al., 1977); `nll` is the mean loss in nats. Accuracy is the share of positions whose best token is the
    label. Softmax and sums are computed in float64.

    Attributes:
        spec: of the output.
        positions: tokens per sequence.
        classes: tokens of the vocabulary.
        score: `perplexity` or `nll`.
        ignore: the label of a position that is not judged.
    """

    name: ClassVar[str] = "perplexity"

    spec: ValueSpec
    positions: int
    classes: int
    score: str = "perplexity"
    ignore: int = IGNORED

    @property
    def text(self) -> str:
        """The task as `--task` takes it."""
        options = [] if self.ignore == IGNORED else [f"ignore={self.ignore}"]
        options += [] if self.score == "perplexity" else [f"score={self.score}"]
        return f"{self.name}:{','.join(options)}" if options else self.name

    @property
    def words(self) -> str:
        """What is judged, for captions."""
        return f"{METRICS[self.score].words} (of the next token, one of {self.classes}, at {self.positions} positions)"

    def metric(self, labelled: bool) -> Metric:
        """Return perplexity or mean loss, or without labels the share of unchanged best tokens."""
        return METRICS[self.score if labelled else "unchanged"]

    def answers(self, *outputs: Array) -> Array:
        """Return best tokens (n, positions), without losses."""
        return self._answer(outputs[0], None)

    def reader(self, labels: Array | None) -> Callable[..., Array]:
        """Return a function that adds the loss of each label, so that the scores need not be kept."""
        done = 0

        def read(*outputs: Array) -> Array:
            nonlocal done
            start, done = done, done + len(outputs[0])
            return self._answer(outputs[0], None if labels is None else labels[start:done])

        return read

    def _answer(self, x: Array, labels: Array | None) -> Array:
        scores = real(x, self.spec).reshape(len(x), self.positions, self.classes)
        answers = np.zeros(scores.shape[:2], _ANSWER)
        with np.errstate(invalid="ignore", over="ignore"):
            answers["best"] = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=-1)
            if labels is not None:
                for row, wanted, answer in zip(scores, labels, answers["loss"], strict=True):
                    answer[:] = _losses(row, np.where(wanted == self.ignore, 0, wanted))
        return answers

    def labels(self, given: Any, images: int) -> npt.NDArray[np.int64]:
        """Return labels (n, positions) as token numbers."""
        kept = check_counts(np.asarray(given), images, self.output, (self.positions,), "token")
        return class_numbers(kept.reshape(images, self.positions), self.classes, self.output, self.ignore)

    def labels_from(self, inputs: Mapping[str, Array]) -> npt.NDArray[np.int64] | None:
        """Return the next token of each position, `ignore` at the last one and where `attention_mask` is 0."""
        tokens = inputs.get("input_ids", next(iter(inputs.values())) if len(inputs) == 1 else None)
        if tokens is None or tokens.shape[1:] != (self.positions,) or tokens.dtype.kind not in "iu":
            return None
        labels = np.full(tokens.shape, self.ignore, np.int64)
        labels[:, :-1] = tokens[:, 1:]
        mask = inputs.get("attention_mask")
        if mask is not None and mask.shape == tokens.shape:
            labels[:, :-1][(mask[:, 1:] == 0) | (mask[:, :-1] == 0)] = self.ignore
        return labels

    def judge(self, answers: Array, labels: Array | None, clean: Array) -> Judgement:
        """Compute perplexity, mean loss, accuracy, and the share of changed best tokens."""
        if labels is None:
            return Judgement(None, float(np.mean(answers["best"] != clean["best"])))
        judged = labels != self.ignore
        best, losses = answers["best"][judged], answers["loss"][judged]
        loss = min(float(losses.mean()), _LARGEST)
        changed = float(np.mean(best != clean["best"][judged]))
        return Judgement(float(np.mean(best == labels[judged])), changed, {"perplexity": math.exp(loss), "nll": loss})


def _losses(scores: Array, labels: Array) -> npt.NDArray[np.float64]:
    """Return -ln softmax(scores)[label] of each position. scores: (positions, classes)."""
    wide = scores.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    losses: npt.NDArray[np.float64] = np.log(np.exp(wide).sum(axis=-1)) - np.take_along_axis(wide, labels[:, None], axis=-1)[:, 0]
    return np.where(np.isfinite(losses), losses, _LARGEST)
