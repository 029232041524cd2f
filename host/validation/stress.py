"""Which error rates bring flips near the bounds: for every image, those at which its own q lies just below its own bound."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.faults.deployment import ReadPolicy
from weakcell.host.datasets.registry import DataLike
from weakcell.host.study.executors import default_workers
from weakcell.host.study.networks import ModelLike
from weakcell.host.study.study import ResolvedStudy, Study, check_jobs, resolve_study
from weakcell.host.study.sweep_values import Sweep
from weakcell.host.validation.trial import Pairs, TrialTask, check_trial
from weakcell.host.validation.twin import compute_twin
from weakcell.memmodels.errors import UsageError

Array = npt.NDArray[Any]

_GRID = tuple(float(f"{x:.3g}") for x in np.geomspace(1e-5, 0.3, 60))
_PILOTS = 2
_AIM = 0.96
"""The share of its bound that an image's q should reach."""


def resolve_validation(
    study: Study,
    data_dir: Path | None = None,
    *,
    stress: bool = False,
    model: ModelLike | None = None,
    data: DataLike | None = None,
) -> tuple[ResolvedStudy, dict[int, Array]]:
    """Load and check a study to validate, and choose its images.

    Args:
        study: What to run.
        data_dir: The folder to search first for a data set's files.
        stress: Run every image only at the error rates that bring its own flips near its own bound.
        model: The network itself, instead of the one that the study names.
        data: The data themselves, instead of those that the study names.

    Returns:
        The study, and for each point the numbers of the images that run there; a point that is missing runs on all.

    Raises:
        UsageError: `stress` with a sweep, with a memory without `ber`, or with weights that are read more than once per trial; or
            there are too many trials.
    """
    check_jobs(f"--trials {study.trials}", study.jobs * (len(_GRID) if stress else 1))
    resolve = partial(resolve_study, data_dir=data_dir, model=model, data=data)
    if not stress:
        return resolve(study), {}
    if study.sweep is not None:
        raise UsageError("--stress with --sweep", "both choose the operating points", "Give one of them")
    return _resolve_stressed(study, resolve)


def _resolve_stressed(study: Study, resolve: Callable[[Study], ResolvedStudy]) -> tuple[ResolvedStudy, dict[int, Array]]:
    """Choose the rates by two trials at each of 60 rates.

    For each image and check, it is the rate whose flips, averaged over the trials, come nearest to 0.96 of the bound from below.
    """
    if "ber" not in {condition.name for condition in study.memory.technology.conditions}:
        found = f"{study.memory.name} has no bit error rate to choose"
        raise UsageError("--stress", found, "Give --memory uniform:ber=…, or --sweep over what that memory has")
    if study.read_every is not ReadPolicy.LOAD:
        # a point runs on some of the images only, which must not change what the others read
        found = f"weights are read per {study.read_every}, and each rate runs on some of the images only"
        raise UsageError("--stress", found, "Read them per load, or give --sweep")
    given = {key: value for key, value in study.memory.conditions.items() if key not in ("p01", "p10")}
    base = replace(study, memory=replace(study.memory, conditions={**given, "ber": _GRID[0]}))
    pilot = resolve(replace(base, sweep=Sweep("ber", _GRID, True), trials=_PILOTS))
    images = _nearest(pilot)
    rates = tuple(_GRID[position] for position in images) or (1e-2,)
    resolved = resolve(replace(base, sweep=Sweep("ber", rates, True)))
    return resolved, dict(enumerate(images.values()))


def _nearest(pilot: ResolvedStudy) -> dict[int, Array]:
    """Return, by position in the grid of rates, the images for which a check comes nearest to its bound there."""
    twin = compute_twin(pilot, hidden=False, by_spec=True)
    shares: dict[str, Array] = {}

    def run(task: TrialTask) -> tuple[int, list[Pairs]]:
        return task.point.index, check_trial(pilot, twin, task, keep_pairs=True).pairs or []

    tasks = [TrialTask(point, trial) for point in pilot.points for trial in range(_PILOTS)]
    with ThreadPoolExecutor(default_workers(), thread_name_prefix="pilot") as pool:
        for position, pairs in pool.map(run, tasks):
            for check, images, q, bound in pairs:
                share = shares.setdefault(check, np.zeros((len(_GRID), len(twin.answers))))
                share[position, images] += np.where(bound >= 1, q / np.maximum(bound, 1), np.inf) / _PILOTS
    chosen: dict[int, list[Array]] = {}
    for share in shares.values():
        share[share > 1] = 0.0  # beyond the bound, or no bound
        best = np.abs(share - _AIM).argmin(axis=0)
        for position in np.unique(best):
            hits = np.flatnonzero((best == position) & (share[position] > 0))
            if hits.size:
                chosen.setdefault(int(position), []).append(hits)
    return {position: np.unique(np.concatenate(chosen[position])) for position in sorted(chosen)}
