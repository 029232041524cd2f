"""Replay a fault list: a memory that returns exactly the flips in the list, and the study that made it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.host.datasets.registry import DataLike
from weakcell.host.study.arguments import build_study
from weakcell.host.study.fault_list import FaultList, load_faults
from weakcell.host.study.networks import ModelLike
from weakcell.host.study.runner import MemoriesOf
from weakcell.host.study.study import Point, ResolvedStudy, Study, resolve_study
from weakcell.host.study.sweep_values import Sweep
from weakcell.memmodels.address import Layout, Words
from weakcell.memmodels.catalogue import MemorySpec, open_memory, parse_spec
from weakcell.memmodels.errors import InputError, UsageError, WeakcellError
from weakcell.memmodels.files import reason
from weakcell.memmodels.memory import Accesses, ConditionValue, Cost, Key, Memory, ReadReport, Region
from weakcell.memmodels.sampling.sampler import Sampler

UNKNOWN_MEMORY = MemorySpec("uniform", {"ber": 0.0})
"""The memory of a list made by hand, which names none: it makes no errors and costs nothing."""


@dataclass(eq=False)
class ReplayMemory:
    """One array at one point: reads return what was written with the list's flips. Cost and conditions are those of `spec`.

    Parameters are written once and read many times, a buffer is written by every image and read once: write + read numbers both.
    """

    faults: FaultList
    value: float | None
    spec: MemorySpec
    words: int = 0

    @property
    def conditions(self) -> Mapping[str, ConditionValue]:
        """The complete conditions of the SPEC."""
        return self.spec.technology.resolve(self.spec.conditions)

    def at(self, **conditions: ConditionValue) -> Memory:
        """UsageError: a list has the operating points that it was made at."""
        raise UsageError(f"Moving a replay to {conditions}", "a recording has the operating points it was made at", "Replay these")

    def write(self, bits: Words, layout: Layout, key: Key) -> Region:
        """Store the bits behind those written before."""
        region = Region(layout, self.words, bits.copy(), bits.copy(), None, key)
        self.words += layout.words
        return region

    def read(self, region: Region, key: Key, out: Words) -> ReadReport:
        """Return the written bits with the flips of the list at this read."""
        out[:] = region.written
        planes = region.layout.planes
        elements, bits = self.faults.flips(self.value, key.trial, region.layout.name, key.write + key.read)
        here = np.isin(bits, planes)
        cells = elements[here] * len(planes) + np.searchsorted(planes, bits[here])
        np.bitwise_xor.at(out, cells >> 6, np.uint64(1) << (cells & 63).astype(np.uint64))
        return ReadReport(int(here.sum()), commanded=self.conditions)

    def sampler(self, region: Region) -> Sampler | None:
        """None: a list is no distribution."""
        return None

    def cost(self, region: Region, accesses: Accesses) -> Cost:
        """Return the cost of the memory that the list was made with."""
        return open_memory(self.spec).cost(region, accesses)


@dataclass(frozen=True)
class Replay:
    """A fault list as the source of memories for `weakcell.host.study.runner.run`."""

    faults: FaultList

    def memories(self, point: Point, trial: int) -> Sequence[Memory]:
        """Return one replaying memory per array."""
        return [ReplayMemory(self.faults, point.value, spec) for spec in point.placement.arrays]

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.faults.path.read_bytes()).hexdigest()

    def check(self, resolved: ResolvedStudy) -> None:
        """InputError unless every flip of the list belongs to a placed cell of the network and to a trial of the study."""
        faults = self.faults
        faults.check(resolved.network)
        placed = {(slot.tensor, plane) for slot in resolved.points[0].placement.slots for plane in slot.planes}
        asked = f"Replaying {faults.path}"
        for (value, trial, tensor), part in faults.rows.items():
            homeless = [bit for bit in np.unique(part.bit) if (tensor, int(bit)) not in placed]
            if homeless:
                raise InputError(asked, f"bit {homeless[0]} of {tensor} lives in no memory", "Place the tensor in one with --place")
            if value not in {point.value for point in resolved.points} or trial not in resolved.trials:
                raise InputError(asked, f"it has rows of trial {trial} at {value}, which its header lacks", "Bring the whole list")


def restore_study(faults: FaultList, base: Study, given: Mapping[str, Any]) -> Study:
    """Return the study that made a list.

    Args:
        faults: The list. Its header fixes everything but model and data; without a header the study is `base`, with as many trials
            as the list has.
        base: The study with the caller's model and data.
        given: The options that the caller gave.

    Raises:
        UsageError: A given option contradicts the list.
        InputError: The header is damaged.
    """
    if faults.header is None:
        useless = [name for name in ("memory", "sweep", "trials", "first_trial", "die", "seed") if name in given]
        if useless:
            raise UsageError(
                f"--{useless[0]} with --faults", "a list without a header stands for the memory itself", "Leave it out"
            )
        if faults.values not in ((), (None,)):
            raise UsageError(f"Replaying {faults.path}", "it has several points but no header", "Leave sweep_value out of it")
        return replace(base, memory=UNKNOWN_MEMORY, sweep=None, trials=faults.trials, die=None)
    try:
        study = _study_of_header(faults.header, base)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, WeakcellError) as error:
        raise InputError(
            f"The header of {faults.path}", f"cannot be understood ({reason(error)})", "Save the list again"
        ) from error
    other = [name for name in given if _value(study, name) != _value(base, name)]
    if other:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in other)
        raise UsageError(f"{named} with --faults", f"the header of {faults.path} says otherwise", "Leave it out")
    return study


def _value(study: Study, option: str) -> object:
    """Return a study's value of a command-line option."""
    if option == "sweep":
        return None if study.sweep is None else (study.sweep.key, sorted(study.sweep.values))
    return study.places if option == "place" else getattr(study, option)


def _study_of_header(header: Mapping[str, Any], base: Study) -> Study:
    sweep = header["sweep"]
    places = [str(rule).partition("=") for rule in header["places"]]
    return replace(
        base,
        memory=parse_spec(header["memory"]),
        places=tuple((target, parse_spec(spec)) for target, _, spec in places),
        sweep=None if sweep is None else Sweep(str(sweep["key"]), tuple(float(value) for value in sweep["values"])),
        trials=int(header["trials"]),
        first_trial=int(header.get("first_trial", 0)),
        die=None if header["die"] is None else int(header["die"]),
        task=None if header.get("task") is None else str(header["task"]),
        output=None if header.get("output") is None else str(header["output"]),
        read_every=ReadPolicy(header["read_every"]),
        batch=int(header["batch"]),
        seed=int(header["seed"]),
        images=int(header["images"]),
    )


def resolve_replay(
    path: Path, model: ModelLike, data: DataLike | None, data_dir: str | Path | None = None, **options: object
) -> tuple[ResolvedStudy, MemoriesOf]:
    """Load a fault list and resolve the study that made it.

    Args:
        path: The fault list, `.parquet` or `.csv`.
        model: The network, see `find_model`.
        data: The data set, see `load_data`.
        data_dir: The folder to search first for a data set's files.
        options: Keyword arguments of `build_study` that the caller gave.

    Returns:
        The study, and its memories for `run_study`.

    Raises:
        InputError: The list is damaged, or does not fit the network.
        UsageError: An option contradicts the list.
    """
    faults = load_faults(path)
    study = restore_study(faults, build_study(model, data, **options), options)  # type: ignore[arg-type]
    replay = Replay(faults)
    label = None if faults.header else f"faults:{path.name}"
    folder = None if data_dir is None else Path(data_dir)
    resolved = resolve_study(study, folder, model=model, data=data, replays=replay.sha256, memory_label=label)
    replay.check(resolved)
    return resolved, replay.memories
