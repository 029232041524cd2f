"""The one way from a caller's arguments to a study: the Python API and the command line both go through it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, TypeAlias, TypeVar

from weakcell.emulator.faults.deployment import Sampling
from weakcell.emulator.faults.read_policy import DEFAULT_READS, ReadPolicy
from weakcell.host.datasets.registry import DataLike
from weakcell.host.study.networks import ModelLike, find_model
from weakcell.host.study.study import DEFAULT_MEMORY, DEFAULT_SWEEP, ResolvedStudy, Study, check_jobs, resolve_study
from weakcell.host.study.sweep_values import SweepLike, as_sweep
from weakcell.memmodels.catalogue import MemorySpec, parse_spec
from weakcell.memmodels.errors import MemorySpecError, UsageError
from weakcell.memmodels.memory import ConditionValue

Choice = TypeVar("Choice", bound=StrEnum)

MemoryLike: TypeAlias = str | MemorySpec | Mapping[str, ConditionValue]
"""What a caller may pass as a memory."""

PlaceLike: TypeAlias = Mapping[str, MemoryLike] | Sequence[str] | str
"""What a caller may pass as placement rules."""


def build_study(
    model: ModelLike = "digits-bnn",
    data: DataLike | None = None,
    *,
    memory: MemoryLike | None = None,
    sweep: SweepLike | None = None,
    place: PlaceLike | None = None,
    trials: int = 10,
    first_trial: int = 0,
    die: int | None = None,
    read_every: str = DEFAULT_READS,
    batch: int = 256,
    seed: int = 0,
    images: int | None = None,
    sampling: str = "bits",
    task: str | None = None,
    output: str | None = None,
) -> Study:
    """Describe a study by names, paths, SPEC strings, dicts or objects. Nothing is loaded.

    Without memory and sweep, it is the embedded example: the 14 nm SRAM, swept over its supply voltage.

    Raises:
        MemorySpecError: A memory or one of its conditions is unknown.
        UsageError: Another argument cannot be understood.
        InputError: The model is missing.
    """
    named = model if isinstance(model, str | Path) else find_model(model).name
    return Study(
        model=str(named),
        data=str(data) if isinstance(data, str | Path) else None,
        memory=DEFAULT_MEMORY if memory is None else as_memory_spec(memory),
        places=as_rules(place or ()),
        sweep=DEFAULT_SWEEP if memory is None and sweep is None else as_sweep(sweep),
        trials=as_whole("trials", trials),
        first_trial=as_whole("first_trial", first_trial),
        die=None if die is None else as_whole("die", die),
        read_every=_choose(ReadPolicy, "read_every", read_every),
        batch=as_whole("batch", batch),
        seed=as_whole("seed", seed),
        images=None if images is None else as_whole("images", images),
        sampling=_choose(Sampling, "sampling", sampling),
        task=task,
        output=output,
    )


def resolve_arguments(
    model: ModelLike, data: DataLike | None, data_dir: str | Path | None = None, **options: object
) -> ResolvedStudy:
    """Build a study from a caller's arguments, load its network and data, and check every point.

    Args:
        model: The network, see `find_model`.
        data: The data set, see `load_data`; None for the network's own.
        data_dir: The folder to search first for a data set's files.
        options: The keyword arguments of `build_study`.

    Raises:
        UsageError: There are too many trials, or an argument cannot be understood.
    """
    study = build_study(model, data, **options)  # type: ignore[arg-type]
    check_jobs(f"--trials {study.trials}", study.jobs)
    return resolve_study(study, None if data_dir is None else Path(data_dir), model=model, data=data)


def _choose(kind: type[Choice], name: str, value: str) -> Choice:
    if value not in list(kind):
        raise UsageError(f"{name}={value!r}", "it is no choice", f"Choose {', '.join(kind)}")
    return kind(value)


def as_whole(name: str, value: Any) -> int:
    """Return a whole number, also one of NumPy. UsageError for any other value, such as 2.0 or a text."""
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name}={shortened(value)}", "it is not a whole number", f"Write it as in {name}=2") from None


def as_memory_spec(memory: MemoryLike) -> MemorySpec:
    """Return the SPEC that a caller describes.

    Args:
        memory: A SPEC string, a `MemorySpec`, or a dict with the technology's `name` and its conditions:
            `{"name": "sram-14nm", "v_over_vmin": 0.8}`. The name may have wrappers: `secded+uniform`.

    Raises:
        MemorySpecError: The memory or a condition is unknown, or the dict has no name.
    """
    if isinstance(memory, str):
        return parse_spec(memory)
    if isinstance(memory, MemorySpec):
        return memory
    if not isinstance(memory, Mapping) or "name" not in memory:
        do = "Give a SPEC as in 'uniform:ber=0.01', or a dict as in {'name': 'uniform', 'ber': 0.01}"
        raise MemorySpecError(f"Memory {shortened(memory)}", "it does not name a technology", do)
    conditions = {key: value for key, value in memory.items() if key != "name"}
    return parse_spec(str(MemorySpec(str(memory["name"]), conditions)))


def as_rules(place: PlaceLike) -> tuple[tuple[str, MemorySpec], ...]:
    """Return placement rules (target, SPEC) from a dict, or from one text or several `TARGET=SPEC`; later rules win.

    Raises:
        UsageError: A text is not `TARGET=SPEC`.
        MemorySpecError: A memory is unknown.
    """
    if isinstance(place, Mapping):
        return tuple((target, as_memory_spec(memory)) for target, memory in place.items())
    rules = []
    for rule in [place] if isinstance(place, str) else place:
        target, equals, spec = rule.partition("=")
        if not (target and equals and spec):
            raise UsageError(f"--place {rule}", "it is not LAYER=SPEC", "Write it as in --place conv1=uniform:ber=0.01")
        rules.append((target.strip(), parse_spec(spec)))
    return tuple(rules)
