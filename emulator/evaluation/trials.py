"""Trials and what they say: accuracy under errors, and predictions that changed. Intervals over trials:
`weakcell.emulator.evaluation.intervals`.

The unit of replication is the trial (a die and its draws), never the image: images of one trial share its faults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import check_inputs, fault_free_values, read_off
from weakcell.emulator.engine.fault_free_cache import FaultFreeCache
from weakcell.emulator.faults.deployment import Deployment, Fault, Sampling, deploy
from weakcell.emulator.faults.output_sampling import tensors_sampled_at_output
from weakcell.emulator.faults.placement import Placement
from weakcell.emulator.faults.read_policy import DEFAULT_POLICY, ReadPolicy
from weakcell.emulator.faults.run import chunks_under_faults
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.tasks import Asked, Judgement, Metric, Seen, Task, recognise
from weakcell.emulator.tasks.checks import shape_text
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.memory import Memory

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Inputs by name, labels if there are any, and what the fault-free network answers.

    labels, clean: as the task makes them of the data's labels and of the output (`Task.labels`, `Task.answers`).
    task: what the network's output means, and what judges it.
    fault_free_cache: the clean pass over the inputs, if trials may begin where it and they part; it changes no result.
    """

    inputs: Mapping[str, Array]
    labels: Any
    fault_free_answers: Any
    task: Task
    fault_free_cache: FaultFreeCache | None = None

    @property
    def images(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def metric(self) -> Metric:
        """What the score of a trial measures."""
        return self.task.metric(self.labels is not None)

    @cached_property
    def fault_free_judgement(self) -> Judgement:
        """What the fault-free answers are worth."""
        return self.task.judge(self.fault_free_answers, self.labels, self.fault_free_answers)

    @property
    def fault_free_accuracy(self) -> float | None:
        """Accuracy of the fault-free network; None without labels or for a task without right and wrong."""
        return self.fault_free_judgement.accuracy

    @property
    def fault_free_score(self) -> float | None:
        """The score of the fault-free network; None without labels."""
        return None if self.labels is None else self.fault_free_judgement.score(self.metric)

    def first(self, images: int) -> EvaluationSet:
        """The same for the first images only, without the clean pass."""
        labels = None if self.labels is None else self.task.first(self.labels, images)
        inputs = {name: x[:images] for name, x in self.inputs.items()}
        return EvaluationSet(inputs, labels, self.task.first(self.fault_free_answers, images), self.task)


def prepare_evaluation(plan: Plan, inputs: Mapping[str, Array], labels: Any = None, asked: Asked | None = None) -> EvaluationSet:
    """Find the task of a network's outputs and run the clean network once over the data.

    Args:
        plan: the network.
        inputs: arrays by input name, images along the first axis.
        labels: as the data hold them, or None.
        asked: task and output as the user named them; what is not named is recognised.

    Raises:
        InputError: inputs or labels do not fit.
        UsageError: no output, or more than one, can be judged.
    """
    images = len(next(iter(inputs.values())))
    if labels is not None and (np.ndim(labels) == 0 or len(labels) != images):
        found = f"there are {images} images"
        raise InputError(f"Labels of shape {shape_text(np.asarray(labels))}", found, "Bring as many labels as images")
    task = recognise(plan.network, labels, asked)
    checked = None if labels is None else task.labels(labels, images)
    held = check_inputs(plan, inputs)
    seen = Seen()
    chunks = fault_free_values(plan, held, plan.network.outputs)
    clean = task.join(read_off(plan, task.outputs, chunks, lambda *x: task.answers(*map(seen.noted, x))))
    seen.check(task, asked)
    task.check_clean(clean, checked)
    return EvaluationSet(inputs, checked, clean, task, FaultFreeCache(plan, held))


@dataclass(frozen=True)
class TrialResult:
    """One trial: a pass over the data set. Accuracies are shares in [0, 1]; flips and bits_read count by tensor.

    accuracy, changed, class_accuracy, metrics: see `Judgement`. score: the value of the task's own metric.
    by_outputs: the tensors whose layers' outputs were drawn; nobody knows how many of their bits flipped.
    """

    trial: int
    die: int
    images: int
    accuracy: float | None
    changed: float
    flips: Mapping[str, int]
    bits_read: Mapping[str, int]
    class_accuracy: tuple[float, ...] = ()
    faults: tuple[Fault, ...] = ()
    by_outputs: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    score: float = math.nan

    @property
    def all_flips(self) -> int | None:
        """Flips of all tensors; None if outputs were drawn."""
        return None if self.by_outputs else sum(self.flips.values())

    @property
    def flip_rate(self) -> float | None:
        """Flips per bit read; None if outputs were drawn."""
        return None if self.all_flips is None else self.all_flips / max(1, sum(self.bits_read.values()))


def run_trial(
    plan: Plan,
    placement: Placement,
    questions: EvaluationSet,
    policy: ReadPolicy = DEFAULT_POLICY,
    *,
    trial: int = 0,
    seed: int = 0,
    die: int | None = None,
    batch: int = 256,
    memories: Sequence[Memory] | None = None,
    record: bool = False,
    sampling: Sampling = Sampling.BITS,
    threads: int = 1,
) -> TrialResult:
    """One pass over the data on die `die` (the trial's number if None) with draw `trial`; `record` keeps every flip.

    threads: share the images where that is possible (`outputs_under_faults`); the results are the same.
    """
    deployment = deploy(plan, placement, policy, trial, seed, die, memories, record, sampling)
    task = questions.task
    chunks = chunks_under_faults(plan, questions.inputs, deployment, batch, questions.fault_free_cache, threads)
    answers = task.join(read_off(plan, task.outputs, chunks, task.answers))
    return _judged(deployment, questions, answers, trial if die is None else die)


def _judged(deployment: Deployment, questions: EvaluationSet, answers: Any, die: int) -> TrialResult:
    made = questions.task.judge(answers, questions.labels, questions.fault_free_answers)
    return TrialResult(
        trial=deployment.trial,
        die=die,
        images=questions.images,
        accuracy=made.accuracy,
        changed=made.changed,
        flips=dict(deployment.tally.flips),
        bits_read=dict(deployment.tally.bits_read),
        class_accuracy=made.class_accuracy,
        faults=tuple(deployment.faults or ()),
        by_outputs=tensors_sampled_at_output(deployment),
        metrics=made.metrics,
        score=made.score(questions.metric),
    )
