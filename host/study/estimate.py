"""Estimate what a study takes before it is run: seconds, bytes, and rows of a fault list."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from weakcell.emulator.engine.executor import chunk_size
from weakcell.emulator.evaluation.trials import run_trial
from weakcell.emulator.faults.deployment import reads_per_image
from weakcell.emulator.ir.values import Buffer, Storable, encode_values
from weakcell.host.study.executors import default_workers
from weakcell.host.study.study import Point, ResolvedStudy, complete_spec
from weakcell.memmodels.errors import UsageError

MOST_ROWS = 200_000_000
MOST_BYTES = 8 << 30
_ENOUGH_SECONDS = 0.15


@dataclass(frozen=True)
class Estimate:
    """What a study takes.

    Attributes:
        points: Operating points.
        trials: Trials per point.
        images: Images per trial.
        threads: Threads that run trials.
        seconds: Wall time on these threads, without start and compilation.
        memory_bytes: The largest memory of the process.
    """

    points: int
    trials: int
    images: int
    threads: int
    seconds: float
    memory_bytes: int


def estimate(resolved: ResolvedStudy, threads: int | None = None) -> Estimate:
    """Time a few images at the first, middle and last point, and scale up to all images and trials."""
    workers = min(threads or default_workers(), resolved.jobs)
    chosen = {0, len(resolved.points) // 2, len(resolved.points) - 1}
    per_trial = float(np.mean([_seconds_of_trial(resolved, resolved.points[index]) for index in sorted(chosen)]))
    return Estimate(
        len(resolved.points),
        resolved.study.trials,
        len(resolved.dataset),
        workers,
        per_trial * resolved.jobs / workers,
        _resident_bytes() + workers * _bytes_of_trial(resolved),
    )


def _seconds_of_trial(resolved: ResolvedStudy, point: Point) -> float:
    """Estimate one trial from two numbers of images: a fixed part, and a part that grows with the images."""
    total, sizes = len(resolved.dataset), [min(2, len(resolved.dataset))]
    _timed(resolved, point, sizes[0])
    seconds = [_timed(resolved, point, sizes[0])]
    while sizes[-1] < total and seconds[-1] < _ENOUGH_SECONDS:
        sizes.append(min(total, sizes[-1] * 4))
        seconds.append(_timed(resolved, point, sizes[-1]))
    if sizes[-1] == total:
        return seconds[-1]
    slope = max(0.0, (seconds[-1] - seconds[0]) / max(1, sizes[-1] - sizes[0])) or seconds[-1] / sizes[-1]
    return seconds[-1] + slope * (total - sizes[-1])


def _timed(resolved: ResolvedStudy, point: Point, images: int) -> float:
    study, few = resolved.study, resolved.questions.first(images)

    def once() -> float:
        start = time.perf_counter()
        run_trial(resolved.plan, point.placement, few, study.read_every, seed=study.seed, die=study.die, batch=study.batch)
        return time.perf_counter() - start

    took = once()
    return took if took < _ENOUGH_SECONDS else min(took, once())  # the first may have compiled what fewer images did not need


def _bytes_of_trial(resolved: ResolvedStudy) -> int:
    """Return the bytes of a run: its parameters, stored bits (written, stored, previous, baseline, flips), inputs and values."""
    network, plan = resolved.network, resolved.plan
    parameters = sum(tensor.values.nbytes for tensor in plan.tensors.values())
    stored = 5 * resolved.points[0].placement.bits(network) // 8
    inputs = sum(4 * x.size for x in resolved.questions.inputs.values())
    widest = max(int(np.prod(spec.shape)) for spec in network.values.values())
    step = chunk_size(network)
    return parameters + stored + inputs + 4 * 4 * widest * step


def _resident_bytes() -> int:
    try:
        import resource
    except ImportError:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def expected_rows(resolved: ResolvedStudy) -> float:
    """Return the expected number of flips of all points and trials: rows of a fault list."""
    return sum(rows for rows, _ in _by_slot(resolved))


def check_fault_list(resolved: ResolvedStudy, yes: bool = False) -> float:
    """Return the expected rows. UsageError if they are too many, or need too much memory to record, unless `yes`."""
    rows = expected_rows(resolved)
    largest = max((kept for _, kept in _by_slot(resolved)), default=0.0)
    needed = rows * 30 + largest * len(resolved.plan.tensors) * default_workers()
    if not yes and (rows > MOST_ROWS or needed > MOST_BYTES):
        raise UsageError(
            "Saving the fault list of this study",
            f"about {rows:.2g} flips are expected, which takes about {needed / 2**30:.2g} GiB of memory",
            "Take fewer points, trials or images, a coarser --read-every, or give --yes",
        )
    return rows


def _by_slot(resolved: ResolvedStudy) -> Iterator[tuple[float, float]]:
    """Yield, for each slot at each point, the expected flips of all trials and the bytes that one trial keeps while it records."""
    network, study, images = resolved.network, resolved.study, len(resolved.dataset)
    reads = reads_per_image(network, study.read_every, images, study.batch)
    for point in resolved.points:
        specs = [complete_spec(spec) for spec in point.placement.arrays]
        terms = [spec.technology.terms(spec.conditions) for spec in specs]
        for slot in point.placement.slots:
            zeros, ones = _stored(resolved.plan.storable[slot.tensor], slot.planes)
            flips = min(sum(_flips(term, zeros, ones) for term in terms[slot.array]), float(ones + zeros))
            count = reads[slot.tensor] * images
            yield flips * count * study.trials, min(1.0, flips) * count * (ones + zeros) / 8


def _stored(item: Storable, planes: tuple[int, ...]) -> tuple[int, int]:
    """Count the stored zeros and ones of some bit planes; half and half for a buffer, whose bits depend on the images."""
    if isinstance(item, Buffer):
        half = item.elements * len(planes) // 2
        return item.elements * len(planes) - half, half
    codes = encode_values(item.values, item.encoding)
    ones = sum(int(((codes >> np.uint64(plane)) & np.uint64(1)).sum()) for plane in planes)
    return codes.size * len(planes) - ones, ones


def _flips(term: Any, zeros: int, ones: int) -> float:
    """Return the expected flips of one term; its mean rate serves for terms without p01 and p10."""
    return float(getattr(term, "p01", term.rate) * zeros + getattr(term, "p10", term.rate) * ones)
