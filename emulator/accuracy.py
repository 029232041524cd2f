"""Trials and what they say: accuracy under errors, and predictions that changed. Intervals over trials: `emulator.intervals`.

The unit of replication is the trial (a die and its draws), never the image: images of one trial share its faults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.clean import CleanPass
from emulator.deployment import Deployment, Fault, ReadPolicy, Sampling, deploy
from emulator.outcomes import drawn_by_outputs
from emulator.placement import Placement
from emulator.plan import Plan
from emulator.run import outputs_under_faults
from emulator.walk import check_inputs, infer
from memmodels.errors import InputError
from memmodels.memory import Memory

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Questions:
    """Inputs by name, labels if there are any, and what the fault-free network answers (class numbers, one per image).

    passed: the clean pass over the inputs, if trials may begin where it and they part; it changes no result.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    clean: Array
    passed: CleanPass | None = None

    @property
    def images(self) -> int:
        return len(self.clean)

    @property
    def clean_accuracy(self) -> float | None:
        return None if self.labels is None else float(np.mean(self.clean == self.labels))


def pose(plan: Plan, inputs: Mapping[str, Array], labels: Array | None = None) -> Questions:
    """Run the clean network once over the data; InputError if labels and images do not match in number."""
    clean = _answers(plan, infer(plan, inputs, dynamic="image"))
    if labels is not None and labels.shape != clean.shape:
        raise InputError(f"Labels of shape {labels.shape}", f"there are {len(clean)} images", "Bring one integer label per image")
    return Questions(inputs, labels, clean, CleanPass(plan, check_inputs(plan, inputs)))


def _answers(plan: Plan, outputs: Mapping[str, Array]) -> Array:
    """The class of each image: argmax of the first output, the lowest class at a tie; a score that is NaN never wins."""
    scores = outputs[plan.network.outputs[0]]
    if scores.dtype.kind == "f":
        scores = np.where(np.isnan(scores), -np.inf, scores)
    answers: Array = np.argmax(scores.reshape(len(scores), -1), axis=1)
    return answers


@dataclass(frozen=True)
class TrialResult:
    """One trial: a pass over the data set. Accuracies are shares in [0, 1]; flips and bits_read count by tensor.

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
    questions: Questions,
    policy: ReadPolicy = ReadPolicy.BATCH,
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
    answers = _answers(plan, outputs_under_faults(plan, questions.inputs, deployment, batch, questions.passed, threads))
    return _judge(deployment, questions, answers, trial if die is None else die)


def _judge(deployment: Deployment, questions: Questions, answers: Array, die: int) -> TrialResult:
    right = None if questions.labels is None else answers == questions.labels
    per_class: tuple[float, ...] = ()
    if right is not None and questions.labels is not None and len(right):
        classes = range(int(questions.labels.max()) + 1)
        per_class = tuple(
            float(right[questions.labels == c].mean()) if (questions.labels == c).any() else math.nan for c in classes
        )
    return TrialResult(
        trial=deployment.trial,
        die=die,
        images=questions.images,
        accuracy=None if right is None else float(right.mean()),
        changed=float(np.mean(answers != questions.clean)),
        flips=dict(deployment.tally.flips),
        bits_read=dict(deployment.tally.bits_read),
        class_accuracy=per_class,
        faults=tuple(deployment.faults or ()),
        by_outputs=drawn_by_outputs(deployment),
    )
