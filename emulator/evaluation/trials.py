"""Trials under faults, and what they say: accuracy, and predictions that changed.

The unit of replication is the trial (a die and its draws), never the image: images of one trial share its faults.
For intervals over trials see `weakcell.emulator.evaluation.intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import check_inputs, fault_free_values, map_outputs
from weakcell.emulator.engine.fault_free_cache import FaultFreeCache
from weakcell.emulator.faults.deployment import Fault, Sampling, deploy
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
Chunks = Iterator[dict[str, Array]]
"""Outputs of one chunk of images after the other, in physical form."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The data of an evaluation, and what the fault-free network answers.

    Attributes:
        inputs: arrays by input name, images along the first axis.
        labels: the data's labels as the task checked them (`Task.labels`), or None.
        fault_free_answers: what the task makes of the fault-free outputs (`Task.answers`).
        task: what the network's output means, and what a score is.
        fault_free_cache: cached activations. A trial begins at the first layer whose weights differ. Only affects speed.
    """

    inputs: Mapping[str, Array]
    labels: Any
    fault_free_answers: Any
    task: Task
    fault_free_cache: FaultFreeCache | None = None

    @property
    def images(self) -> int:
        """The number of images."""
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
        """Score of the fault-free network; None without labels."""
        return None if self.labels is None else self.fault_free_judgement.score(self.metric)

    def first(self, images: int) -> EvaluationSet:
        """Return a set of the first images only, without the cache."""
        labels = None if self.labels is None else self.task.first(self.labels, images)
        inputs = {name: x[:images] for name, x in self.inputs.items()}
        return EvaluationSet(inputs, labels, self.task.first(self.fault_free_answers, images), self.task)


def prepare_evaluation(plan: Plan, inputs: Mapping[str, Array], labels: Any = None, asked: Asked | None = None) -> EvaluationSet:
    """Find the task of a network's outputs, and run the fault-free network once over the data.

    Args:
        plan: the compiled network.
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
    labels = task.labels_from(inputs) if labels is None else labels
    checked_labels = None if labels is None else task.labels(labels, images)
    checked_inputs = check_inputs(plan, inputs)
    seen = Seen()
    chunks = fault_free_values(plan, checked_inputs, plan.network.outputs)
    read = task.reader(checked_labels)
    answers = task.join(map_outputs(plan, task.outputs, chunks, lambda *x: read(*map(seen.noted, x))))
    seen.check(task, asked)
    task.check_clean(answers, checked_labels)
    return EvaluationSet(inputs, checked_labels, answers, task, FaultFreeCache(plan, checked_inputs))


@dataclass(frozen=True)
class TrialResult:
    """One trial: a pass over the data set.

    Attributes:
        trial: the number of the trial.
        die: the number of the die.
        images: the number of images.
        accuracy: share of right answers in [0, 1]; None if the task knows no right and wrong (`Judgement`).
        changed: share of answers that differ from the fault-free ones, in [0, 1].
        flips: flipped bits, by tensor.
        bits_read: bits read, by tensor.
        class_accuracy: accuracy of each class.
        faults: every read with flips, if the trial recorded them.
        by_outputs: tensors whose errors were sampled at the output; nobody knows how many of their bits flipped.
        metrics: further metrics, by name.
        score: the value of the task's own metric.
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
        """Flips of all tensors; None if errors were sampled at an output."""
        return None if self.by_outputs else sum(self.flips.values())

    @property
    def flip_rate(self) -> float | None:
        """Flips per bit read; None if errors were sampled at an output."""
        return None if self.all_flips is None else self.all_flips / max(1, sum(self.bits_read.values()))


def run_trial(
    plan: Plan,
    placement: Placement,
    evaluation: EvaluationSet,
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
    compute: Callable[[Chunks], Chunks] | None = None,
) -> TrialResult:
    """Run one pass over the data with faults.

    Args:
        plan: the compiled network.
        placement: which memory each stored bit lives in.
        evaluation: the data.
        policy: when weights are read again.
        trial: the number of the trial; it names the draw.
        seed: the seed of all simulated memories.
        die: the number of the die; None for one die per trial.
        batch: images per batch, for `ReadPolicy.BATCH`.
        memories: one per array of the placement, instead of opening them from their SPECs.
        record: keep every read with flips.
        sampling: what is sampled at a read.
        threads: they share the images where that is possible (`outputs_under_faults`); results are the same.
        compute: returns the outputs that are judged, given those computed here (a board that computes, too).

    Raises:
        UsageError: see `deploy`.
    """
    deployment = deploy(
        plan, placement, policy, trial=trial, seed=seed, die=die, memories=memories, record=record, sampling=sampling
    )
    task = evaluation.task
    chunks = chunks_under_faults(plan, evaluation.inputs, deployment, batch, evaluation.fault_free_cache, threads)
    chunks = chunks if compute is None else compute(chunks)
    answers = task.join(map_outputs(plan, task.outputs, chunks, task.reader(evaluation.labels)))
    judgement = task.judge(answers, evaluation.labels, evaluation.fault_free_answers)
    return TrialResult(
        trial=trial,
        die=trial if die is None else die,
        images=evaluation.images,
        accuracy=judgement.accuracy,
        changed=judgement.changed,
        flips=dict(deployment.tally.flips),
        bits_read=dict(deployment.tally.bits_read),
        class_accuracy=judgement.class_accuracy,
        faults=tuple(deployment.faults or ()),
        by_outputs=tensors_sampled_at_output(deployment),
        metrics=judgement.metrics,
        score=judgement.score(evaluation.metric),
    )
