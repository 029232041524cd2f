"""A study: which network, on which memory, on which data, how often.

A `Study` is a description and costs nothing. `resolve_study` loads everything that it names and checks every operating point, so
that every mistake is reported before the first trial.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from weakcell import emulator
from weakcell.emulator.faults.deployment import Sampling, deploy
from weakcell.emulator.faults.energy import InferenceCost, cost_per_inference
from weakcell.emulator.faults.output_sampling import tensors_sampled_at_output
from weakcell.emulator.faults.placement import Placement, place
from weakcell.emulator.faults.read_policy import DEFAULT_POLICY, ReadPolicy
from weakcell.emulator.ir.network import Network
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.tasks import Asked
from weakcell.host.datasets.registry import DataLike, Dataset
from weakcell.host.digests import hash_json, memory_file_sha256
from weakcell.host.study.networks import Model, ModelLike
from weakcell.host.study.sweep_values import Sweep, parse_sweep
from weakcell.host.study.workload import Workload, open_workload
from weakcell.memmodels.catalogue import MemorySpec, names, technology
from weakcell.memmodels.errors import ModelError, UsageError
from weakcell.memmodels.memory import Quantity
from weakcell.memmodels.printable import printable_name
from weakcell.memmodels.protection.wrappers import split_wrappers
from weakcell.memmodels.sampling.sampler import VERSION as SAMPLER_VERSION

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

DEFAULT_MEMORY = MemorySpec("sram-14nm", {})
DEFAULT_SWEEP = parse_sweep("v_over_vmin=0.75:1.0:0.025")

MOST_JOBS = 10_000_000
"""Trials of all points of a study that is no campaign: the outcome of each stays in memory until the end."""


@dataclass(frozen=True)
class Study:
    """What to run. The defaults are the embedded example: a digits network on 14 nm SRAM, swept over its supply voltage.

    Attributes:
        model: A shipped name or a path; the name of a network that was given as an object.
        data: A data set's name or a path; None for the network's own, or for data that were given as an object.
        memory: The default memory.
        places: Placement rules (target, SPEC), as for `weakcell.emulator.faults.placement.place`.
        sweep: The condition of the default memory that moves, and its values.
        trials: Passes over the data per point. Trial t runs on die t.
        first_trial: The number of the first trial.
        die: The die that all trials run on.
        read_every: When weights are read again.
        batch: Images per read under `read_every=batch`.
        seed: Names all dies and draws.
        images: Use only the first `images` images.
        sampling: Whether flips of stored bits are drawn, or outputs of layers.
        task: What the network's output means (`NAME:option=value,…`); None: recognised.
        output: The output that is judged; None: recognised.
    """

    model: str = "digits-bnn"
    data: str | None = None
    memory: MemorySpec = DEFAULT_MEMORY
    places: tuple[tuple[str, MemorySpec], ...] = ()
    sweep: Sweep | None = DEFAULT_SWEEP
    trials: int = 10
    first_trial: int = 0
    die: int | None = None
    read_every: ReadPolicy = DEFAULT_POLICY
    batch: int = 256
    seed: int = 0
    images: int | None = None
    sampling: Sampling = Sampling.BITS
    task: str | None = None
    output: str | None = None

    @property
    def asked(self) -> Asked:
        """Task and output as the caller named them."""
        return Asked(self.task, self.output)

    @property
    def jobs(self) -> int:
        """The number of trials at all points."""
        return self.trials * (1 if self.sweep is None else len(self.sweep.values))

    def check(self) -> None:
        """UsageError for a number out of range; MemorySpecError for any operating point that a law does not cover."""
        for name, value, low in (("trials", self.trials, 1), ("batch", self.batch, 1), ("images", self.images, 1),
                                 ("first-trial", self.first_trial, 0), ("die", self.die, 0), ("seed", self.seed, 0)):  # fmt: skip
            if value is not None and not low <= value < 1 << 63:
                raise UsageError(f"--{name} {value}", f"it must lie in {low} … 2^63 - 1", "Give a number in that range")
        check_last_trial(self.first_trial, self.trials)
        for _, spec in self.places:
            spec.check()
        for _, spec in self.operating_points():
            spec.check()

    def operating_points(self) -> list[tuple[float | None, MemorySpec]]:
        """Return the swept value of each point (None without a sweep) and the default memory there."""
        if self.sweep is None:
            return [(None, self.memory)]
        return [(value, self.memory.at(**{self.sweep.key: value})) for value in self.sweep.values]


@dataclass(frozen=True, eq=False)
class Point:
    """One operating point.

    Attributes:
        index: Its number in the study.
        value: The swept value; None without a sweep.
        placement: Where every stored bit lives.
        memory: The default memory with all conditions, in words.
        places: The placement rules with all conditions, in words.
        lifetimes: How long errors last.
        cost: What the memory accesses of one inference cost.
        by_outputs: Weight tensors whose layers' outputs are drawn instead of their bits.
    """

    index: int
    value: float | None
    placement: Placement
    memory: str
    places: str
    lifetimes: tuple[str, ...]
    cost: InferenceCost
    by_outputs: tuple[str, ...] = ()

    @property
    def energy(self) -> Quantity | None:
        """The energy of one inference; None if none is known, or only in units that do not add up."""
        return self.cost.energy[0] if len(self.cost.energy) == 1 else None


@dataclass(frozen=True, eq=False)
class ResolvedStudy:
    """A study with everything loaded and every point checked.

    Attributes:
        study: The description.
        workload: The network and the data.
        points: The operating points, in the order of the sweep.
        replays: Digest of the fault list that is replayed; None if none is.
    """

    study: Study
    workload: Workload
    points: tuple[Point, ...]
    replays: str | None = None

    @property
    def model(self) -> Model:
        """The network as it was given."""
        return self.workload.model

    @property
    def dataset(self) -> Dataset:
        """The data."""
        return self.workload.dataset

    @property
    def plan(self) -> Plan:
        """The compiled network."""
        return self.workload.plan

    @property
    def questions(self) -> emulator.EvaluationSet:
        """The inputs, the labels and the fault-free answers."""
        return self.workload.questions

    @property
    def network(self) -> Network:
        """The imported network."""
        return self.workload.network

    @property
    def trials(self) -> range:
        """The numbers of the trials at every point."""
        return range(self.study.first_trial, self.study.first_trial + self.study.trials)

    @property
    def jobs(self) -> int:
        """The number of trials at all points."""
        return len(self.points) * self.study.trials

    def die_of(self, trial: int) -> int:
        """Return the die that a trial runs on."""
        return trial if self.study.die is None else self.study.die

    @cached_property
    def identity(self) -> dict[str, object]:
        """Everything that the results depend on, and nothing else: equal identities have equal results."""
        study = self.study
        return {
            **self.workload.identity,
            "memory": str(study.memory),
            "places": [f"{target}={spec}" for target, spec in study.places],
            "sweep": None if study.sweep is None else {"key": study.sweep.key, "values": sorted(study.sweep.values)},
            "trials": study.trials,
            "first_trial": study.first_trial,
            "die": study.die,
            "read_every": str(study.read_every),
            "batch": study.batch,
            "seed": study.seed,
            "sampler": SAMPLER_VERSION,
            "sampling": str(study.sampling),
            "replays": self.replays,
            **_law_versions([study.memory, *(spec for _, spec in study.places)]),
        }

    def cell_identity(self, point: Point) -> dict[str, object]:
        """Everything that the runs of one point depend on besides the number of the trial: with it, the identity of a run.

        The batch counts only where reads go by batches. Memories that live in files count with the contents of these.
        """
        study = self.study
        arrays = [complete_spec(spec) for spec in point.placement.arrays]
        return {
            **{key: value for key, value in self.workload.identity.items() if key not in ("model", "data")},
            "memories": [str(spec) for spec in arrays],
            "files": [memory_file_sha256(spec.name) for spec in arrays],
            "slots": [[slot.tensor, list(slot.planes), slot.array] for slot in point.placement.slots],
            "read_every": str(study.read_every),
            "batch": study.batch if study.read_every is ReadPolicy.BATCH else None,
            "die": study.die,
            "seed": study.seed,
            "sampler": SAMPLER_VERSION,
            "sampling": str(study.sampling),
            **_law_versions(arrays),
        }

    def cell_sha256(self, point: Point) -> str:
        """The point's name in a store of runs."""
        return hash_json(self.cell_identity(point))


def _law_versions(specs: Iterable[MemorySpec]) -> dict[str, object]:
    """Return the versions of the laws of these memories, as a part of an identity.

    The first version is left out: stores from before there were versions keep their identities.
    """
    inside = {split_wrappers(spec.name)[1] for spec in specs}
    versions = {name: technology(name).version for name in sorted(inside & set(names()))}
    later = {name: version for name, version in versions.items() if version > 1}
    return {"laws": later} if later else {}


def check_last_trial(first: int, trials: int) -> None:
    """Raise UsageError if the number of the last trial is too large for the sampling format."""
    if first + trials > 1 << 63:
        raise UsageError(f"--first-trial {first}", f"the last of {trials} trials is beyond 2^63 - 1", "Give a smaller number")


def check_jobs(asked: str, jobs: int) -> None:
    """Raise UsageError if the outcomes of so many trials do not fit into memory."""
    if jobs > MOST_JOBS:
        found = f"these are {jobs:,} trials in all, and {MOST_JOBS:,} are the most whose outcomes are kept in memory"
        raise UsageError(asked, found, "Take fewer, or a campaign with half_width (weakcell sweep)")


def resolve_study(
    study: Study,
    data_dir: Path | None = None,
    *,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    workload: Workload | None = None,
    replays: str | None = None,
    memory_label: str | None = None,
) -> ResolvedStudy:
    """Load what a study names and check every operating point, so that every mistake is reported before the first trial.

    Args:
        study: What to run.
        data_dir: The folder to search first for a data set's files.
        model: The network itself, instead of the one that the study names.
        data: The data itself, instead of those that the study names.
        workload: The study's network and data, if they are loaded already.
        replays: Digest of the fault list that the memories will replay.
        memory_label: What results call the default memory instead of its SPEC.

    Raises:
        UsageError: A number is out of range, or nothing lives in the memory.
        MemorySpecError: A point lies outside what the technology's law covers.
        InputError: The network or data are missing or do not fit (ModelError: the network is not supported).
    """
    study.check()
    if workload is None:
        source = study.model if model is None else model
        workload = open_workload(source, study.data if data is None else data, study.images, data_dir, asked=study.asked)
    placements = [(value, place(workload.network, spec, study.places)) for value, spec in study.operating_points()]
    if not workload.network.weights and not placements[0][1].slots:
        raise not_quantized(workload.model.name)
    if study.sweep is not None and not any(slot.array == 0 for slot in placements[0][1].slots):
        raise UsageError(f"Sweep of {study.sweep.key}", "nothing lives in the default memory that it moves", "Change --place")
    points = tuple(_point(study, workload.plan, i, value, placement) for i, (value, placement) in enumerate(placements))
    _check_sampling(study, points, replays)
    log.info("resolved %s on %s: %d points", workload.model.name, workload.dataset.name, len(points))
    if memory_label is not None:
        points = tuple(replace(point, memory=memory_label, lifetimes=()) for point in points)
    return ResolvedStudy(study, workload, points, replays)


def not_quantized(model: str) -> ModelError:
    """Return the error for a network that stores no weight as integers or signs."""
    found = "none of its weights is quantized: all of them are floats, and a memory holds the bits of integers and signs"
    do = "Quantize it first, for instance with onnxruntime.quantization.quantize_static, or train it with quantized weights"
    return ModelError(f"Network {model!r}", found, do)


def _point(study: Study, plan: Plan, index: int, value: float | None, placement: Placement) -> Point:
    full = [complete_spec(spec) for spec in placement.arrays]
    named = {str(spec): str(whole) for spec, whole in zip(placement.arrays, full, strict=True)}
    lifetimes = [str(life) for spec in full for life in spec.technology.lifetimes(spec.conditions)]
    reads = study.sampling is Sampling.OUTPUTS  # which layers allow that, samplers say
    deployment = deploy(plan, placement, study.read_every, seed=study.seed, die=study.die, sampling=study.sampling, reads=reads)
    return Point(
        index,
        value,
        placement,
        memory=printable_name(str(full[0])),
        places=printable_name("; ".join(f"{target}={named[str(spec)]}" for target, spec in study.places)),
        lifetimes=tuple(dict.fromkeys(lifetimes)),
        cost=cost_per_inference(deployment, study.batch),
        by_outputs=tensors_sampled_at_output(deployment),
    )


def _check_sampling(study: Study, points: Sequence[Point], replays: str | None) -> None:
    """UsageError if outputs are to be drawn and no layer of the study allows it."""
    if study.sampling is Sampling.BITS:
        return
    if replays is not None:
        raise UsageError("Replaying a fault list with --sampling outputs", "that draws no flips", "Leave --sampling out")
    if not any(point.by_outputs for point in points):
        raise UsageError(
            "--sampling outputs",
            "no layer of this study allows it: it takes binary weights in one memory whose cells err independently at each read, "
            "read once per image (dense layers) or at each use (convolutions too)",
            "Give --read-every image or access and a memory with errors of lifetime read, or leave --sampling out",
        )


def complete_spec(spec: MemorySpec) -> MemorySpec:
    """Return the SPEC with all conditions, defaults included."""
    return MemorySpec(spec.name, spec.technology.resolve(spec.conditions))
