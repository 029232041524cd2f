"""Exact in distribution: faulty sums drawn from the clean ones, where each weight is used once per read (`--sampling outputs`).

A sum of K products of ±1 has d mismatches (inputs that differ from their weight). If every weight errs independently with p,

    d' = d + Bin(K - d, p) - Bin(d, p)

independently for every output and every read: matches break, mismatches heal. Where p01 != p10, errors come in two steps: first
the cells that store one of the values err with r, then all cells with q, so that q (+) r and q are the two rates. For the first
step the cells of that value are split into matches and mismatches by the numbers of 1s in the input and in the weights:

    mismatches at weights of 1 = (d - ones(x) + ones(w)) / 2        at weights of 0 = (d + ones(x) - ones(w)) / 2

Valid for errors of lifetime `read` in independent cells, and where no weight serves two outputs of one read. No flips are made, so
none are counted, saved or replayed. What is drawn depends on (seed, trial, read, region, output), never on threads or chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.convolution import UNROUNDED, Reading
from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, Sampling, StoredSlot
from weakcell.emulator.ir import layers as nw
from weakcell.emulator.kernels import conv as kernels
from weakcell.emulator.kernels.arguments import Epilogue, MismatchModel, ReadSequence
from weakcell.emulator.kernels.output_sampling import GUIDE_BITS, draw_mismatches, draw_signs, sample_convolution_signs
from weakcell.emulator.kernels.weight_layouts import LANES, PackedInt1
from weakcell.emulator.plan.parameters import ParameterState
from weakcell.memmodels.sampling.sampler import Sampler

Array = npt.NDArray[Any]


class Law(NamedTuple):
    """Laws of Bin(plus, p) - Bin(minus, p), one row for each number `first`, `first` + 1 … that they are asked for.

    low (R,) int64, cumulative (R, width) uint64: P(value <= low + j) in units of 2^-64. guide (R, 64): how many entries are <= the
    smallest random word with these top 6 bits, where a search may begin.
    """

    first: int
    low: npt.NDArray[np.int64]
    cumulative: npt.NDArray[np.uint64]
    guide: npt.NDArray[np.int32]


class Kept(NamedTuple):
    """Where a random word lies below which an output is 1, for each output and each number of clean mismatches.

    table (limits, width) uint64, in units of 2^-64: chances that mismatches, once drawn, are at most some limit. starts,
    columns (O'): of an output with d clean mismatches it is entry starts + clip(columns - d, 0, width - 1) of all.
    fewest, most: the clean mismatches that the table is for.
    """

    table: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    fewest: int
    most: int


def applies(layer: nw.Layer, deployment: Deployment) -> bool:
    """Whether a layer's outputs may be drawn instead of its weights."""
    if deployment.sampling is not Sampling.OUTPUTS or deployment.faults is not None or not isinstance(layer, nw.Convolution):
        return False
    return deployment.once(("outputs", layer.output), lambda: _has_a_law(layer, deployment))


def _has_a_law(layer: nw.Convolution, deployment: Deployment) -> bool:
    plan, policy = deployment.plan, deployment.policy
    if policy not in (ReadPolicy.IMAGE, ReadPolicy.ACCESS) or not plan.tensors[layer.weight].is_sign_packed:
        return False
    once = policy is ReadPolicy.ACCESS or plan.network.values[layer.output].height_width == (1, 1)
    alone = sum(layer.weight in other.tensor_names() for other in plan.network.layers) == 1
    stored = deployment.slots_of(layer)
    return once and alone and len(stored) == 1 and stored[0].slot.tensor == layer.weight and _independent(stored[0].sampler)


def _independent(sampler: Sampler | None) -> bool:
    return sampler is not None and bool((sampler.terms["weak_row"] < 0).all())


def tensors_sampled_at_output(deployment: Deployment) -> tuple[str, ...]:
    """The weight tensors whose layers' outputs are drawn."""
    return tuple(layer.weight for layer in deployment.plan.network.layers if applies(layer, deployment))  # type: ignore[attr-defined]


def settle(parameters: ParameterState, deployment: Deployment) -> None:
    """Put what every read of the trial brings back wrong into the weights whose outputs are drawn."""
    for name in tensors_sampled_at_output(deployment):
        (part,) = deployment.slots[name]
        assert part.sampler is not None
        if part.sampler.matches_written:
            continue
        parameters.flip(name, part.slot.planes, part.sampler.baseline ^ part.sampler.written)


def drawn_sums(
    layer: nw.Convolution, own: Reading, parameters: ParameterState, deployment: Deployment, stored: StoredSlot, first: int
) -> Array:
    """A layer's sums int32 (n, oh, ow, O), without bias, for images first.. of the data set."""
    height, width = parameters.specs[layer.output].height_width
    sums = np.empty((len(own.x), height, width, own.context.bias.size), dtype=np.int32)
    rows = sums.reshape(-1, sums.shape[3])
    for drawing in _drawings(layer, own, parameters, deployment, stored, first):
        counts = drawing.counts
        draw_mismatches(counts, drawing.model, drawing.reads)
        rows[drawing.here] = drawing.bits - 2 * counts
    return sums


def drawn_signs(
    layer: nw.Convolution,
    own: Reading,
    threshold: Array,
    parameters: ParameterState,
    deployment: Deployment,
    stored: StoredSlot,
    first: int,
    out: Array,
) -> None:
    """Bits (n, oh, ow, ceil(O / 64)) of sums >= threshold, of the same sums as `drawn_sums`."""
    assert stored.sampler is not None
    rates, rows = _composed(stored.sampler), out.reshape(-1, out.shape[3])
    if rates[0] == rates[1] and len(own.context.border_patterns) == 1 and own.context.border_patterns.all():
        _draw_while_summed(layer, own, threshold, parameters, deployment, stored, first, rows)
        return
    for drawing in _drawings(layer, own, parameters, deployment, stored, first):
        limits, made = (drawing.bits - threshold.astype(np.int64)) >> 1, np.empty_like(rows[drawing.here])
        draw_signs(drawing.counts, limits, drawing.model, drawing.reads, made)
        rows[drawing.here] = made


def _draw_while_summed(
    layer: nw.Convolution,
    own: Reading,
    threshold: Array,
    parameters: ParameterState,
    deployment: Deployment,
    stored: StoredSlot,
    first: int,
    rows: Array,
) -> None:
    """The same bits where all places see all taps and all cells err alike.

    Which mismatches there will be is not known before: a run begins with those that the last one met, and goes on with more.
    """
    assert stored.sampler is not None
    plan, weights, p = parameters.plan, PackedInt1(parameters.values[layer.weight]), _composed(stored.sampler)[0]
    bits, (height, width) = (
        own.context.border_patterns.size * own.context.inputs_per_tap,
        parameters.specs[layer.output].height_width,
    )
    limits = np.full(len(weights.values) * LANES, -1)
    limits[: threshold.size] = (bits - threshold.astype(np.int64)) >> 1
    key, spread = ("mismatches", layer.output), 3 * math.isqrt(bits)
    low, high = plan.workspaces.acquire(key, lambda: (bits // 2 - spread, bits // 2 + spread))
    numbers = np.arange(first * height * width, first * height * width + len(rows))
    reads = ReadSequence(stored.sampler.source, deployment.trial, stored.region.key.write, numbers)
    words, done = rows.view(np.uint32)[:, : len(weights.values)], 0
    while done < len(rows):
        low, high = max(0, low // 64 * 64), min(bits, high // 64 * 64 + 63)
        survival = _kept(limits, bits, low, high, p)
        done, fewest, most = sample_convolution_signs(own.x, words, weights, own.context, survival, reads, done)
        low, high = (low, high) if done == len(rows) else (min(low, fewest), max(high, most))
    plan.workspaces.release(key, (low, high))
    deployment.tally.read(stored.slot.tensor, stored.region.layout.bits * len(rows))


class _Drawing(NamedTuple):
    """What the kernels draw from, for places that see the same taps: clean mismatches (R, O) of sums of `bits` cells, and laws."""

    here: Any
    bits: int
    counts: Array
    model: MismatchModel
    reads: ReadSequence


def _drawings(
    layer: nw.Convolution, own: Reading, parameters: ParameterState, deployment: Deployment, stored: StoredSlot, first: int
) -> Iterator[_Drawing]:
    sampler, weights, images = stored.sampler, PackedInt1(parameters.values[layer.weight]), len(own.x)
    assert sampler is not None
    context = own.context._replace(bias=np.zeros_like(own.context.bias))
    height, width = parameters.specs[layer.output].height_width
    outputs, places, place_of = context.bias.size, context.border_patterns, context.row_table[1]
    sums = np.empty((images, height, width, outputs), dtype=np.int32)
    kernels.convolution(own.x, sums, weights, context, Epilogue(kernels.compute_offsets(weights, context), UNROUNDED))
    rows, reads, rates = sums.reshape(-1, outputs), np.arange(sums.size // outputs) + first * height * width, _composed(sampler)
    ones, by_tap = np.zeros(len(rows), dtype=np.int64), np.zeros((outputs, places.shape[1]), dtype=np.int64)
    if rates[0] != rates[1]:
        ones = _ones_in_windows(own, (height, width))
        by_tap = kernels.sum_weights_by_tap(weights, places.shape[1]).T[:outputs]
    for place, inside in enumerate(places):
        here = slice(None) if len(places) == 1 else np.flatnonzero(np.tile(place_of, images) == place)
        bits = int(inside.sum()) * context.inputs_per_tap
        if len(rows):
            counts = rows[here]
            np.right_shift(np.subtract(bits, counts, out=counts), 1, out=counts)
            model = MismatchModel(bits, ones[here], by_tap[:, inside].sum(axis=1), *_laws(counts, bits, rates))
            sequence = ReadSequence(sampler.source, deployment.trial, stored.region.key.write, reads[here])
            yield _Drawing(here, bits, counts, model, sequence)
    deployment.tally.read(stored.slot.tensor, stored.region.layout.bits * len(rows))


def _laws(counts: Array, bits: int, rates: tuple[float, float]) -> tuple[Law, Law, int]:
    """The two laws (all cells, cells that store one of the values), and that value or -1, for clean mismatches."""
    low, high, at = int(counts.min()), int(counts.max()), -1
    common, extra = _split(rates)
    more = _binomials(0, 1, 0.0)
    if extra:
        at = int(rates[1] != common)
        more = _binomials(0, bits, extra)
        reach = int(more.low.max()) + more.cumulative.shape[1]
        low, high = max(0, low - reach), min(bits, high + reach)
    return _differences(bits, low // 64 * 64, min(bits, high // 64 * 64 + 63), common), more, at


def _composed(sampler: Sampler) -> tuple[float, float]:
    """p01 and p10 of all the terms of a read, one after the other."""
    p01, p10 = 0.0, 0.0
    for a, b in sampler.terms["rates"]:
        p01, p10 = p01 * (1 - b) + (1 - p01) * a, p10 * (1 - a) + (1 - p10) * b
    return float(p01), float(p10)


def _split(rates: tuple[float, float]) -> tuple[float, float]:
    """(q, r) such that one of the rates is q and the other q (+) r = q + r - 2 q r, with r in [0, 1]."""
    common, other = sorted(rates, key=lambda p: abs(1.0 - 2.0 * p), reverse=True)
    return common, 0.0 if other == common else min(1.0, (other - common) / (1.0 - 2.0 * common))


@lru_cache(maxsize=64)
def _differences(bits: int, low: int, high: int, p: float) -> Law:
    """Bin(bits - d, p) - Bin(d, p) for d in low..high."""
    d = np.arange(low, high + 1)
    return _law(low, bits - d, d, p)


def _kept(limits: Array, bits: int, low: int, high: int, p: float) -> Kept:
    """For outputs that are 1 up to these numbers of mismatches."""
    table, before = _by_limit(bits, low, high, p)
    starts = np.clip(limits - low - before, 0, len(table) - 1) * table.shape[1]
    return Kept(table, starts, limits - before, low, high)


@lru_cache(maxsize=16)
def _by_limit(bits: int, low: int, high: int, p: float) -> tuple[npt.NDArray[np.uint64], int]:
    """`Kept.table`, row r for the limit low + before + r; its column 0 is for limit - d = before, where nothing is kept."""
    law = _differences(bits, low, high, p)
    last, before = law.cumulative.shape[1] - 1, int(law.low.min()) - 1
    beyond = np.arange(before, int(law.low.max()) + last + 1)
    d = np.arange(low + before, high + beyond[-1] + 1)[:, None] - beyond
    row = np.clip(d - low, 0, high - low)
    step = beyond - law.low[row]
    table = law.cumulative[row, np.clip(step, 0, last)]
    table[step < 0] = 0
    table[step >= last] = np.iinfo(np.uint64).max
    return table, before


@lru_cache(maxsize=16)
def _binomials(low: int, high: int, p: float) -> Law:
    """Bin(n, p) for n in low..high."""
    n = np.arange(low, high + 1)
    return _law(low, n, np.zeros_like(n), p)


def _law(first: int, plus: Array, minus: Array, p: float) -> Law:
    """See `Law`; computed in float64, exact to about 1e-15."""
    start_plus, chances_plus = _binomial_rows(plus, p)
    start_minus, chances_minus = _binomial_rows(minus, p)
    width = chances_minus.shape[1]
    chances = np.zeros((len(plus), chances_plus.shape[1] + width - 1))
    for k in range(width):
        chances[:, width - 1 - k : chances.shape[1] - k] += chances_plus * chances_minus[:, k : k + 1]
    scaled = np.minimum(np.cumsum(chances, axis=1) * 2.0**64, np.nextafter(2.0**64, 0.0))
    cumulative = scaled.astype(np.uint64)
    below = int(np.count_nonzero((cumulative == 0).all(axis=0)))
    above = int(np.count_nonzero((cumulative == cumulative[:, -1:]).all(axis=0))) - 1
    cumulative = np.ascontiguousarray(cumulative[:, below : cumulative.shape[1] - above])
    words = np.arange(1 << GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - GUIDE_BITS)
    guide = np.array([np.searchsorted(row, words, side="right") for row in cumulative], dtype=np.int32)
    np.minimum(guide, cumulative.shape[1] - 1, out=guide)
    return Law(first, start_plus - start_minus - (width - 1) + below, cumulative, guide)


def _binomial_rows(n: Array, p: float) -> tuple[Array, Array]:
    """First value of each row, and the chances from there on: all but less than 2^-64 of Bin(n, p)."""
    from scipy.stats import binom

    most = int(n.max())
    reach = math.ceil(10.0 * math.sqrt(most * p * (1.0 - p))) + 40
    width = min(2 * reach, most) + 1
    start = np.clip(np.rint(n * p).astype(np.int64) - reach, 0, most + 1 - width)
    return start, binom.pmf(start[:, None] + np.arange(width), n[:, None], p)


def _ones_in_windows(own: Reading, size: tuple[int, int]) -> Array:
    """1s of the inputs in the window of each output pixel, in the order image, row, column."""
    (kh, kw), (sh, sw), (dh, dw) = own.window.kernel, own.window.stride, own.window.dilation
    ones = np.bitwise_count(own.x).sum(axis=3, dtype=np.int64)
    views = np.lib.stride_tricks.sliding_window_view(ones, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(1, 2))
    views = views[:, ::sh, ::sw, ::dh, ::dw][:, : size[0], : size[1]]
    return np.ascontiguousarray(views.sum(axis=(3, 4)).reshape(-1))
