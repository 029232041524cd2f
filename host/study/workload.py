"""A workload: a network and data, loaded, compiled and evaluated without faults once; any number of runs share it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from weakcell import emulator
from weakcell.emulator.engine.batch_axis import images_first
from weakcell.emulator.importer.ports import OpenSizesError
from weakcell.emulator.importer.standard_inputs import add_missing_inputs
from weakcell.emulator.ir.network import Network
from weakcell.emulator.plan.plan import Plan, compile_plan
from weakcell.emulator.tasks import Asked, Task, is_default
from weakcell.host.datasets.input_range import InputCheck, check_data
from weakcell.host.datasets.registry import DataLike, Dataset, load_data
from weakcell.host.digests import hash_json, weights_sha256
from weakcell.host.fork_guard import check_not_forked
from weakcell.host.study.networks import Model, ModelLike, find_model
from weakcell.memmodels.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Workload:
    """A network and data, ready for runs. It is immutable: threads share it, and workers receive a copy.

    Attributes:
        model: The network as it was given.
        dataset: The data.
        plan: The compiled network.
        questions: The inputs, the labels and the fault-free answers.
        inputs: How the data fill the range of each input.
    """

    model: Model
    dataset: Dataset
    plan: Plan
    questions: emulator.EvaluationSet
    inputs: tuple[InputCheck, ...] = ()

    @property
    def network(self) -> Network:
        """The imported network."""
        return self.plan.network

    @property
    def labelled(self) -> bool:
        """Whether the data have labels."""
        return self.questions.labels is not None

    @property
    def task(self) -> Task:
        """How the network's output is judged."""
        return self.questions.task

    def require_class_scores(self, asked: str) -> None:
        """UsageError unless the first output is judged by its largest score, which margins are about."""
        if not is_default(self.task, self.network):
            found = f"margins compare the classes' scores in the first output; {self.task.output!r} is judged as {self.task.words}"
            raise UsageError(f"{asked} {self.network.name}", found, "Use emulate, sweep or predict for it")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that results depend on: the network's file and weights (which may lie in other files), and the images.

        Task and output are left out if they are the default, classes on the first output: stores from before there were tasks
        keep their identities.
        """
        judged = {} if is_default(self.task, self.network) else {"task": self.task.text, "output": self.task.output}
        return {
            "model": self.model.name,
            "model_sha256": self.model.sha256,
            "weights_sha256": weights_sha256(self.network),
            "data": self.dataset.name,
            "data_sha256": self.dataset.sha256,
            "images": len(self.dataset),
            **judged,
        }

    @cached_property
    def key(self) -> str:
        """A short digest of `identity`."""
        return hash_json(self.identity)[:16]


def _named_dataset(model: Model) -> str | None:
    """Return the data set that the network's metadata name, if any."""
    try:
        return model.load().metadata.get("dataset")
    except OpenSizesError:
        return None


def open_workload(
    model: ModelLike,
    data: DataLike | None = None,
    images: int | None = None,
    data_dir: Path | None = None,
    *,
    asked: Asked | None = None,
) -> Workload:
    """Load a network and data, and run the fault-free network once.

    Args:
        model: A shipped name, an ONNX file, an `onnx.ModelProto` or an imported network.
        data: As for `load_data`; None for the data set of a shipped network, or the one that the network's metadata names.
        images: Use only the first `images` images.
        data_dir: The folder to search first for a data set's files.
        asked: The task and output that the caller names; what is not named is recognised.

    Raises:
        InputError: The network or data are missing, or do not fit each other.
        ModelError: The network is not supported.
        UsageError: No data are known, no output can be judged, or the process was forked (`fork_guard`).
    """
    check_not_forked("Running a network")
    found = find_model(model)
    source = data if data is not None else found.data
    if source is None:
        source = _named_dataset(found)
    if source is None:
        asked_for = f"Emulating {found.name} without data"
        raise UsageError(asked_for, "it is not a shipped network", "Give --data NAME or --data FILE.npz; in Python data=(x, y)")
    whole = load_data(source, data_dir)
    network = found.load(like=whole.shapes)
    if whole.inputs:
        whole = replace(whole, inputs=add_missing_inputs(network, whole.inputs))
    whole = whole.select(network.inputs)
    dataset, arrays = whole.first(images), images_first(network, dict(whole.inputs) or {network.inputs[0]: whole.x})
    if images is not None and images > len(whole):
        log.warning("%s has %d images, fewer than the %d asked for; all of them are used.", whole.name, len(whole), images)
    plan = compile_plan(network)
    arrays = {name: array[: len(dataset)] for name, array in arrays.items()}
    questions = emulator.prepare_evaluation(plan, arrays, dataset.y, asked)
    return Workload(found, dataset, plan, questions, check_data(network, arrays, dataset.name))
