"""Tasks by name: what the user may write after `--task`, and the task made for one output."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.emulator.tasks.boxes import CORNERS, LAYOUTS, BoxTask, Corners, Layout
from weakcell.emulator.tasks.checks import shape_text, squeezed
from weakcell.emulator.tasks.classes import ClassTask, LabelTask, LogitTask, PixelTask, TokenTask
from weakcell.emulator.tasks.language import IGNORED, PerplexityTask
from weakcell.emulator.tasks.outputs import OutputInfo, listed
from weakcell.emulator.tasks.task import Task
from weakcell.emulator.tasks.values import ValueTask
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.numbers import parse_integer, parse_number

Array = npt.NDArray[Any]


class Unfit(Exception):
    """A task does not fit an output; the text says why."""


@dataclass(frozen=True)
class Options:
    """What may stand behind a task's name; None where nothing was said.

    top: a label is right among so many best answers. threshold: a logit above it means class 1. axis: where the classes of tokens
    and pixels lie, `first` or `last`. ignore: a label that is not judged. score: the metric of that name is the score.
    layout, corners, scores, confidence, overlap: see `BoxTask`.
    """

    top: int | None = None
    threshold: float | None = None
    axis: Literal["first", "last"] | None = None
    ignore: int | None = None
    score: str | None = None
    layout: Layout | None = None
    corners: Corners | None = None
    scores: str | None = None
    confidence: float | None = None
    overlap: float | None = None


_SCORES = {
    "pixels": ("mean_iou", "accuracy"),
    "perplexity": ("perplexity", "nll"),
    "values": ("mae", "mse"),
    "boxes": ("mean_ap", "mean_ap_50"),
}
_TAKES: dict[str, tuple[str, ...]] = {
    "classes": ("top",),
    "logit": ("threshold",),
    "labels": ("top",),
    "tokens": ("axis", "ignore", "threshold"),
    "pixels": ("axis", "ignore", "threshold", "score"),
    "perplexity": ("ignore", "score"),
    "values": ("score",),
    "boxes": ("layout", "corners", "scores", "confidence", "overlap", "score"),
}
NAMES = tuple(_TAKES)
"""The tasks there are."""


def parse_task(text: str) -> tuple[str, Options]:
    """NAME or NAME:option=value,… as name and options; UsageError says what is wrong with it."""
    name, _, rest = text.partition(":")
    name = name.strip()
    if name not in _TAKES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Perhaps {near[0]} is meant" if near else f"The tasks are {', '.join(NAMES)}"
        raise UsageError(f"--task {text}", f"there is no task {name!r}", hint)
    given: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in _TAKES[name] or not equals or key in given:
            takes = ", ".join(f"{one}=…" for one in _TAKES[name]) or "no options"
            found = f"{key} is there twice" if key in given else f"{part!r} is no option of {name}"
            raise UsageError(f"--task {text}", found, f"{name} takes {takes}")
        given[key] = _value(text, name, key, value)
    return name, Options(**given)


def _value(text: str, name: str, key: str, value: str) -> int | float | str:
    words = {"axis": ("first", "last"), "score": _SCORES.get(name, ()), "layout": LAYOUTS, "corners": CORNERS}
    try:
        if key == "scores":
            return value
        if key in words:
            if value not in words[key]:
                raise ValueError
            return value
        number = parse_number(value) if key in ("threshold", "confidence", "overlap") else parse_integer(value)
        if not math.isfinite(number) or abs(number) > 1 << 62 or (key == "top" and number < 1):
            raise ValueError
        if key in ("confidence", "overlap") and not 0.0 <= number <= 1.0:
            raise ValueError
    except (ValueError, OverflowError):
        numbers = {"top": "a whole number from 1", "ignore": "a whole number", "threshold": "a number"}
        numbers |= dict.fromkeys(("confidence", "overlap"), "a number from 0 to 1")
        means = numbers.get(key) or " or ".join(words[key])
        raise UsageError(f"--task {text}", f"{key}={value}", f"{key} takes {means}") from None
    return number


def build(name: str, info: OutputInfo, labels: Array | None, options: Options) -> Task:
    """The task of that name for an output; Unfit with the reason if the output is not of that form."""
    return _BUILDERS[name](info, labels, options)


def _classes(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    sizes, top = info.sizes, options.top or 1
    if info.has_labels:
        raise Unfit("it holds class numbers (--task labels), not scores")
    if info.is_top_values or len(sizes) != 1:
        raise Unfit("classes take one score per class, [N, classes]")
    if top > sizes[0]:
        raise Unfit(f"top={top}, but there are {sizes[0]} classes")
    return ClassTask(info.name, info.spec, "scores", 0, sizes[0], (), top)


def _logit(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    if info.has_labels or info.is_top_values:
        raise Unfit("it holds class numbers or sorted scores, not a logit")
    if len(info.sizes) > 1:
        raise Unfit("logit takes one number per image, or several that are judged each on its own; maps are --task pixels")
    return LogitTask(info.name, info.spec, "logit", None, 2, info.sizes, threshold=_threshold(info, options))


def _threshold(info: OutputInfo, options: Options) -> float:
    return options.threshold if options.threshold is not None else 0.5 if info.is_probability else 0.0


def _labels(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    if info.is_top_values:
        raise Unfit("it holds sorted scores, not class numbers")
    sizes = info.sizes
    if len(sizes) > 1 or (sizes and info.chosen and info.best_axis is None):
        raise Unfit("labels take one class per image, or the k best ones, [N] or [N, k]; others are --task tokens or pixels")
    best = sizes[0] if sizes else 1
    if options.top is not None and options.top > best:
        raise Unfit(f"top={options.top}, but it holds {best} classes per image")
    top = best if options.top is None else options.top
    return LabelTask(info.name, info.spec, "labels", 0 if sizes else None, info.classes, (), top)


def _perplexity(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    shape = info.spec.shape
    if info.has_labels or info.is_top_values or len(shape) != 2:
        raise Unfit("perplexity takes a score for each token of the vocabulary at each position, [N, S, vocabulary]")
    if info.softmax_axis is not None:
        raise Unfit("perplexity takes scores, and a Softmax has made them probabilities; export the network without it")
    ignore = IGNORED if options.ignore is None else options.ignore
    return PerplexityTask(info.name, info.spec, shape[0], shape[1], options.score or "perplexity", ignore)


def _values(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    return ValueTask(info.name, info.spec, info.sizes, options.score or "mae")


def _boxes(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    sizes, layout = info.sizes if len(info.sizes) == 2 else info.spec.shape[-2:], options.layout
    if len(sizes) != 2 or info.has_labels:
        raise Unfit("boxes take a table with a row or a column per box, such as [N, boxes, 5 + classes]")
    if layout is None:
        raise Unfit(f"boxes are written in several ways; give --task boxes:layout=NAME, one of {', '.join(LAYOUTS)}")
    if (options.scores is not None) != (layout == "ssd"):
        raise Unfit("layout=ssd takes scores=OUTPUT, the output with the scores; other layouts hold them beside the boxes")
    exact, fixed = layout in ("end2end", "ssd"), {"yolov5": 5, "yolov8": 4, "end2end": 6, "ssd": 4}[layout]
    by_column = layout == "yolov8" and sizes[0] < sizes[1]
    width = sizes[0] if by_column else sizes[1]
    if width < fixed or (width == fixed) != exact:
        wanted = f"{fixed}" if exact else f"{fixed} + classes"
        raise Unfit(f"a box of layout {layout} has {wanted} numbers, and here it has {width}")
    return BoxTask(
        info.name, info.spec, layout, by_column,
        options.corners or ("xyxy" if exact else "cxcywh"),
        None if exact else width - fixed,
        options.scores or "",
        confidence=0.001 if options.confidence is None else options.confidence,
        overlap=0.7 if options.overlap is None else options.overlap,
        score=options.score or "mean_ap",
    )  # fmt: skip


def with_scores(task: BoxTask, outputs: Sequence[OutputInfo]) -> BoxTask:
    """Return a task of layout `ssd` that knows its output of scores; Unfit if there is none, or if it does not fit the boxes."""
    boxes = task.spec.shape[-2]
    for info in outputs:
        if info.name == task.scores:
            if len(info.spec.shape) < 2 or info.spec.shape[-2] != boxes or info.spec.shape[-1] < 2:
                raise Unfit(f"{info.text} does not hold the scores of {boxes} boxes, one for the background and one per class")
            return replace(task, scores_spec=info.spec, classes=info.spec.shape[-1] - 1)
    raise Unfit(f"there is no output {task.scores!r} with scores; the outputs are {listed(outputs)}")


def _tokens(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    if len(info.sizes) - (info.best_axis is not None if info.has_labels else 1) > 1:
        raise Unfit("tokens take one axis of places; maps are --task pixels")
    return _dense(TokenTask, info, labels, options, last=True)


def _pixels(info: OutputInfo, labels: Array | None, options: Options) -> Task:
    made = _dense(PixelTask, info, labels, options, last=False)
    return replace(made, score=options.score) if isinstance(made, PixelTask) and options.score else made


def _dense(kind: type[ClassTask], info: OutputInfo, labels: Array | None, options: Options, last: bool) -> ClassTask:
    """A class for each position. last: whether classes lie on the last axis where nothing tells."""
    sizes, explicit = info.sizes, () if options.axis is None else (f"axis={options.axis}",)
    if info.is_top_values:
        raise Unfit("it holds sorted scores, not class numbers")
    if info.has_labels:
        axis = info.best_axis
        positions = sizes if axis is None else (*sizes[:axis], *sizes[axis + 1 :])
        if not positions:
            raise Unfit(f"{kind.name} take a class for each of several places")
        return kind(info.name, info.spec, "labels", axis, info.classes, positions, ignore=options.ignore)
    given = None if labels is None else squeezed(np.asarray(labels))
    one_channel = len(info.spec.shape) > len(sizes) and len(sizes) > 1
    if one_channel and options.axis is None and info.softmax_axis is None and (given is None or given.shape[1:] == sizes):
        return kind(
            info.name, info.spec, "logit", None, 2, sizes, threshold=_threshold(info, options), ignore=options.ignore
        )  # fmt: skip
    if len(sizes) < 2:
        raise Unfit(
            f"{kind.name} take scores with an axis of classes and at least one of places, such as [N, C, H, W] or [N, S, C]"
        )
    axis = _axis_of(info, given, options, last)
    positions = (*sizes[:axis], *sizes[axis + 1 :])
    return kind(info.name, info.spec, "scores", axis, sizes[axis], positions, ignore=options.ignore, explicit=explicit)


def _axis_of(info: OutputInfo, labels: Array | None, options: Options, last: bool) -> int:
    """Where the classes lie: as asked, as the labels' shape says, as the graph says, or where they usually do."""
    sizes = info.sizes
    ends = {"first": 0, "last": len(sizes) - 1}
    if options.axis is not None:
        return ends[options.axis]
    usual = ends["last" if last else "first"]
    told = info.class_axis if info.class_axis in ends.values() else None
    if labels is None:
        return usual if told is None else told
    fitting = [axis for axis in ends.values() if labels.shape[1:] == (*sizes[:axis], *sizes[axis + 1 :])]
    if not fitting:
        raise Unfit(f"labels of shape {shape_text(labels)} do not name a class for each place")
    return fitting[0] if len(fitting) == 1 else told if told in fitting else usual


_BUILDERS: dict[str, Callable[[OutputInfo, Array | None, Options], Task]] = {
    "classes": _classes,
    "logit": _logit,
    "labels": _labels,
    "tokens": _tokens,
    "pixels": _pixels,
    "perplexity": _perplexity,
    "values": _values,
    "boxes": _boxes,
}
