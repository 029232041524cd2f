"""Which task fits which output: recognised from graph and labels, or as it was asked for.

    output per image        without labels         labels
    [C] scores              classes                (n,) whole numbers: classes; (n, C) of 0 and 1: logit; (n, C): values
    one number              values; logit          (n,) of 0 and 1: logit; other numbers: values
                            behind a Sigmoid
    class numbers           labels, tokens,        (n,), (n, S), (n, H, W) whole numbers
                            pixels by their shape
    [S, C] or [C, S]        tokens behind Softmax  (n, S) whole numbers: tokens; (n, S, C): values
    [C, H, W] or [H, W, C]  pixels behind Softmax  (n, H, W) whole numbers: pixels; (n, C, H, W): values
    [A, B]                                         (n, M, 5): boxes, and --task boxes:layout=… says how they are written
    [1, H, W]               pixels behind Sigmoid  (n, H, W) of 0 and 1: pixels; other numbers: values

Where nothing fits, or several things do, the refusal lists the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.network import Network
from weakcell.emulator.tasks.boxes import LAYOUTS, BoxTask
from weakcell.emulator.tasks.build import NAMES, Options, Unfit, build, parse_task, with_scores
from weakcell.emulator.tasks.checks import are_integers, shape_text, squeezed
from weakcell.emulator.tasks.classes import ClassTask
from weakcell.emulator.tasks.outputs import OutputInfo, describe_outputs, listed
from weakcell.emulator.tasks.task import Task
from weakcell.memmodels.errors import InputError, UsageError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Asked:
    """What the user said: a task (`NAME:option=value,…`) and the name of an output; None where nothing was said."""

    task: str | None = None
    output: str | None = None


def recognise(network: Network, labels: Array | None = None, asked: Asked | None = None) -> Task:
    """The task by which a network's outputs are judged.

    Args:
        network: whose outputs are meant.
        labels: as the data hold them, one entry per image along the first axis; None without.
        asked: what the user said.

    Raises:
        UsageError: nothing fits, or several outputs do; the message lists the outputs.
        InputError: the labels do not fit the only output that the task can be about.
    """
    asked = asked or Asked()
    outputs = describe_outputs(network)
    if asked.output is not None:
        chosen = [info for info in outputs if info.name == asked.output]
        if not chosen:
            raise UsageError(f"--output {asked.output}", f"{network.name} has the outputs {listed(outputs)}", "Name one of them")
        outputs = tuple(chosen)
    name, options = parse_task(asked.task) if asked.task is not None else (None, Options())
    found, reasons = list[Task](), dict[str, Exception]()
    for info in outputs:
        try:
            task = build(name or natural(info, labels), info, labels, options)
            if isinstance(task, BoxTask) and task.scores:
                task = with_scores(task, describe_outputs(network))
            if labels is not None:
                task.labels(labels, len(labels))
            found.append(task)
        except (Unfit, InputError) as error:
            reasons[info.name] = error
    if len(found) == 1:
        return found[0]
    only = reasons.get(outputs[0].name)
    if len(outputs) == 1 and isinstance(only, InputError):
        raise only
    what = f"Judging the output of {network.name}" + (f" with --task {asked.task}" if asked.task else "")
    if found:
        fitting = ", ".join(f"{task.output!r} ({task.name})" for task in found)
        seen = f"several outputs can be judged: {fitting}; the outputs are {listed(outputs)}"
        raise UsageError(what, seen, "Say which one is meant with --output NAME")
    seen = f"no output can be judged as it is: {'; '.join(_with_reason(info, reasons[info.name], labels) for info in outputs)}"
    if labels is not None:
        seen += f"; the data have {len(labels)} images and labels of shape {shape_text(labels)}"
    do = f"Give --task ({', '.join(NAMES)})" + (" and --output NAME" if len(outputs) > 1 else "")
    if labels is None or asked.task:
        raise UsageError(what, seen, do)
    raise InputError(what, seen, f"Bring labels that fit. {do}")


def _with_reason(info: OutputInfo, error: Exception, labels: Array | None) -> str:
    """An output, why it was not taken, and which tasks would take it."""
    reason = f"{error.asked}, but {error.found}" if isinstance(error, InputError) else str(error)
    return f"{info.text}: {reason} (it could be {', '.join(takers(info, labels)) or 'nothing'})"


def takers(info: OutputInfo, labels: Array | None) -> list[str]:
    """The names of the tasks that would take an output with these labels."""
    found = []
    for name in NAMES:
        for layout in LAYOUTS if name == "boxes" else (None,):
            try:
                task = build(name, info, labels, Options(layout=layout))  # type: ignore[arg-type]
                if labels is not None:
                    task.labels(labels, len(labels))
            except (Unfit, InputError):
                continue
            found.append(name if layout is None else f"{name}:layout={layout}")
    return found


# ── recognition ─────────────────────────────────────────────────────────────────────────────────────


def natural(info: OutputInfo, labels: Array | None) -> str:
    """The name of the task that an output is for, given the labels; Unfit with the reason if that is open."""
    if info.is_top_values:
        raise Unfit("the sorted scores of a TopK do not say of which classes they are")
    given = None if labels is None else squeezed(np.asarray(labels))
    sizes = info.sizes
    if info.has_labels:
        depth = len(sizes) - (info.best_axis is not None)
        return "labels" if depth <= 0 else "tokens" if depth == 1 else "pixels"
    rules: Mapping[int, Callable[[OutputInfo, Array | None], str]] = {0: _one_number, 1: _scores}
    return rules.get(len(sizes), _map)(info, given)


def _one_number(info: OutputInfo, labels: Array | None) -> str:
    if labels is None or labels.ndim != 1:
        return "logit" if info.is_probability else "values"
    if not are_integers(labels):
        return "values"
    if info.is_probability or _is_binary(labels):
        return "logit"
    if len(np.unique(labels)) <= 2:
        low, high = int(labels.min()), int(labels.max())
        raise Unfit(
            f"one number with labels {low} and {high}: a logit takes the classes 0 and 1 (--task logit after writing them so), "
            "a regression is --task values"
        )
    return "values"


def _scores(info: OutputInfo, labels: Array | None) -> str:
    if labels is None or labels.ndim < 2:
        return "classes"
    if labels.shape[1:] == info.sizes and are_integers(labels) and _is_binary(labels):
        if not info.is_probability or (labels.sum(axis=1) == 1).all():
            raise Unfit(
                f"labels of shape {shape_text(labels)} hold 0 and 1 for every score: if they are one-hot, bring "
                "labels.argmax(axis=1); if every score is a yes or no of its own, give --task logit"
            )
        return "logit"
    return "values"


def _map(info: OutputInfo, labels: Array | None) -> str:
    sizes = info.sizes
    if labels is not None and labels.ndim == 3 and labels.shape[2] == 5 and labels.shape[1:] != sizes and len(sizes) == 2:
        return "boxes"  # which asks for its layout
    dense = "tokens" if len(sizes) == 2 else "pixels"
    if labels is None:
        if info.softmax_axis is not None:
            return dense
        if info.is_probability and 1 in info.spec.shape:
            return "pixels"
        raise Unfit(f"without labels it could be classes ({' or '.join(_dense(info))}) or numbers (--task values)")
    if labels.shape[1:] == sizes:
        if not are_integers(labels):
            return "values"
        one_channel = len(info.spec.shape) > len(sizes)
        if _is_binary(labels) and not one_channel:
            raise Unfit(
                f"labels of shape {shape_text(labels)} hold 0 and 1 for every score: bring class numbers without the axis of the "
                "classes, or give --task values"
            )
        return "pixels" if one_channel and (info.is_probability or _is_binary(labels, _IGNORED)) else "values"
    return dense


def _dense(info: OutputInfo) -> list[str]:
    many = len(info.sizes) > 2
    return ["--task pixels"] if many else ["--task tokens", "--task pixels for a map of one logit"]


_IGNORED = (255, -100, -1)
"""Labels that often stand for "not judged"."""


def _is_binary(labels: Array, others: tuple[int, ...] = ()) -> bool:
    """Whether all labels are 0 or 1, or one of the others."""
    return bool(np.isin(labels, (0, 1, *others)).all())


@dataclass
class Seen:
    """The range of the fault-free output: what tells a probability from a logit where the graph does not."""

    low: float = np.inf
    high: float = -np.inf

    def noted(self, x: Array) -> Array:
        """The same output, its range being remembered."""
        if x.size:
            self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        return x

    def check(self, task: Task, asked: Asked | None) -> None:
        """UsageError if what is judged as a logit looks like a probability and nobody named a threshold."""
        told = asked is not None and asked.task is not None and "threshold" in asked.task
        logit = isinstance(task, ClassTask) and task.form == "logit" and task.spec.kind == "float" and task.threshold == 0.0
        if logit and not told and self.low >= 0.0 and self.high <= 1.0 and self.low < self.high:
            raise UsageError(
                f"Judging the output {task.output!r} as a logit, class 1 above 0",
                f"all its numbers lie in {self.low:.3g} … {self.high:.3g}, as those of probabilities do",
                f"Say which it is: --task {task.name}:threshold=0.5 for probabilities, --task {task.name}:threshold=0 for logits",
            )


def is_default(task: Task, network: Network) -> bool:
    """Whether this is the task of a network for which nothing needs to be said: classes, on the first output."""
    return task.name == "classes" and isinstance(task, ClassTask) and task.top == 1 and task.output == network.outputs[0]
