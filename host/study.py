"""A study: which network, on which memory, on which data, how often; and the same made ready to run.

A `Study` is a description and costs nothing. `prepare` loads everything it names and checks every operating point, so that
whatever is wrong is said before the first trial.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import emulator
from emulator.deployment import ReadPolicy, deploy
from emulator.energy import InferenceCost, cost_per_inference
from emulator.network import Network
from emulator.placement import Placement, place
from emulator.plan import Plan, compile_plan
from host.data import Dataset, load_data
from host.models import Model, find_model
from host.sweep import Sweep, parse_sweep
from memmodels.catalogue import MemorySpec
from memmodels.errors import InputError, UsageError
from memmodels.memory import Quantity
from memmodels.sampler import VERSION as SAMPLER_VERSION

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

DEFAULT_MEMORY = MemorySpec("sram-14nm", {})
DEFAULT_SWEEP = parse_sweep("v_over_vmin=0.75:1.0:0.025")


@dataclass(frozen=True)
class Study:
    """What is asked. The defaults are the embedded example: a digits network on 14 nm SRAM, swept over its supply voltage.

    model: a shipped name or a path. data: a name or a path; None takes the shipped network's own. memory: the default memory;
    places: rules (target, SPEC) as in `emulator.place`. trials: passes over the data per point; trial t runs on die t unless
    `die` pins it. batch: images per read under `read_every=batch`. images: only the first of them.
    """

    model: str = "digits-bnn"
    data: str | None = None
    memory: MemorySpec = DEFAULT_MEMORY
    places: tuple[tuple[str, MemorySpec], ...] = ()
    sweep: Sweep | None = DEFAULT_SWEEP
    trials: int = 10
    die: int | None = None
    read_every: ReadPolicy = ReadPolicy.LOAD
    batch: int = 256
    seed: int = 0
    images: int | None = None

    def check(self) -> None:
        """UsageError for a number out of range; MemorySpecError for any operating point that a law does not cover."""
        for name, value, low in (("trials", self.trials, 1), ("batch", self.batch, 1), ("images", self.images, 1),
                                 ("die", self.die, 0), ("seed", self.seed, 0)):  # fmt: skip
            if value is not None and not low <= value < 1 << 63:
                raise UsageError(f"--{name} {value}", f"it must lie in {low} … 2^63 - 1", "Give a number in that range")
        for _, spec in self.places:
            spec.check()
        for _, spec in self.operating_points():
            spec.check()

    def operating_points(self) -> list[tuple[float | None, MemorySpec]]:
        """The default memory at each point, with the value that is swept there (None if nothing is)."""
        if self.sweep is None:
            return [(None, self.memory)]
        return [(value, self.memory.at(**{self.sweep.key: value})) for value in self.sweep.values]


@dataclass(frozen=True, eq=False)
class Point:
    """One operating point: where everything lives, how long errors last, and what an inference costs."""

    index: int
    value: float | None
    placement: Placement
    memory: str
    places: str
    lifetimes: tuple[str, ...]
    cost: InferenceCost

    @property
    def energy(self) -> Quantity | None:
        """The energy of one inference; None if none is known, or only in units that do not add up."""
        return self.cost.energy[0] if len(self.cost.energy) == 1 else None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study with everything loaded and every point checked."""

    study: Study
    model: Model
    dataset: Dataset
    plan: Plan
    questions: emulator.Questions
    points: tuple[Point, ...]
    replays: str | None = None

    @property
    def network(self) -> Network:
        return self.plan.network

    @property
    def jobs(self) -> int:
        """Trials in all."""
        return len(self.points) * self.study.trials

    def die_of(self, trial: int) -> int:
        return trial if self.study.die is None else self.study.die

    @cached_property
    def identity(self) -> dict[str, object]:
        """Everything that the results depend on, and nothing else: equal identities have equal results."""
        study = self.study
        return {
            "model": self.model.name,
            "model_sha256": self.model.sha256,
            "weights_sha256": weights_sha256(self.network),
            "data": self.dataset.name,
            "data_sha256": self.dataset.sha256,
            "memory": str(study.memory),
            "places": [f"{target}={spec}" for target, spec in study.places],
            "sweep": None if study.sweep is None else {"key": study.sweep.key, "values": sorted(study.sweep.values)},
            "trials": study.trials,
            "die": study.die,
            "read_every": str(study.read_every),
            "batch": study.batch,
            "seed": study.seed,
            "images": len(self.dataset),
            "sampler": SAMPLER_VERSION,
            "replays": self.replays,
        }


def prepare(
    study: Study,
    data_dir: Path | None = None,
    dataset: Dataset | None = None,
    replays: str | None = None,
    memory_label: str | None = None,
) -> Prepared:
    """Load and check everything; raises what is wrong before anything runs.

    dataset: takes the place of loading one. replays: hash of the fault list that the memories will replay. memory_label: what
    results call the default memory if not by its SPEC.
    """
    study.check()
    model = find_model(study.model)
    network = emulator.load(model.path)
    placements = [(value, place(network, spec, study.places)) for value, spec in study.operating_points()]
    if study.sweep is not None and not any(slot.array == 0 for slot in placements[0][1].slots):
        raise UsageError(f"Sweep of {study.sweep.key}", "nothing lives in the default memory that it moves", "Change --place")
    if len(network.inputs) != 1:
        found = f"the network has the inputs {', '.join(network.inputs)}"
        raise InputError(f"Emulating {model.name}", found, "Emulate networks with one input; weakcell infer takes several")
    if dataset is None:
        dataset = _data_of(study, model, data_dir)
    dataset = dataset.first(study.images)
    plan = compile_plan(network)
    questions = emulator.pose(plan, {network.inputs[0]: dataset.x}, dataset.y)
    points = tuple(_point(study, plan, i, value, made, len(dataset)) for i, (value, made) in enumerate(placements))
    log.info("prepared %s on %s: %d points", model.name, dataset.name, len(points))
    if memory_label is not None:
        points = tuple(replace(point, memory=memory_label, lifetimes=()) for point in points)
    return Prepared(study, model, dataset, plan, questions, points, replays)


def _data_of(study: Study, model: Model, data_dir: Path | None) -> Dataset:
    name = study.data or model.data
    if name is None:
        asked = f"Emulating {model.name} without data"
        raise UsageError(asked, "it is not a shipped network", "Give --data NAME or --data FILE.npz")
    return load_data(name, data_dir)


def _point(study: Study, plan: Plan, index: int, value: float | None, placement: Placement, images: int) -> Point:
    full = [resolved(spec) for spec in placement.arrays]
    named = {str(spec): str(whole) for spec, whole in zip(placement.arrays, full, strict=True)}
    lifetimes = [str(life) for spec in full for life in spec.technology.lifetimes(spec.conditions)]
    deployment = deploy(plan, placement, study.read_every, seed=study.seed, die=study.die)
    return Point(
        index,
        value,
        placement,
        memory=str(full[0]),
        places="; ".join(f"{target}={named[str(spec)]}" for target, spec in study.places),
        lifetimes=tuple(dict.fromkeys(lifetimes)),
        cost=cost_per_inference(deployment, images, study.batch),
    )


def resolved(spec: MemorySpec) -> MemorySpec:
    """The SPEC with every condition spelled out, defaults included."""
    return MemorySpec(spec.name, spec.technology.resolve(spec.conditions))


def weights_sha256(network: Network) -> str:
    """Of every stored tensor: name, encoding, shape and values, wherever the file keeps them."""
    digest = hashlib.sha256()
    for tensor in network.tensors.values():
        digest.update(f"{tensor.name} {tensor.encoding} {tensor.values.shape}".encode())
        digest.update(tensor.values.astype("<i4").tobytes())
    return digest.hexdigest()
