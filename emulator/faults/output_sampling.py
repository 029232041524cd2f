"""Faulty sums sampled from the fault-free ones, exact in distribution (`--sampling outputs`).

A sum of K products of ±1 has d mismatches (inputs that differ from their weight). If every weight errs independently with
probability p, then

    d' = d + Bin(K - d, p) - Bin(d, p)

independently for every output and every read: matches break, mismatches heal. Where p01 != p10, errors are applied in two steps.
First the cells that store one of the values err with r, then all cells with q, so that q (+) r and q are the two rates. For the
first step the cells of that value are split into matches and mismatches by the numbers of 1s in the input and in the weights:

    mismatches at weights of 1 = (d - ones(x) + ones(w)) / 2        at weights of 0 = (d + ones(x) - ones(w)) / 2

Valid for errors of lifetime `read` in independent cells, and where no weight serves two outputs of one read. No flips are made, so
none are counted, saved or replayed. A sample depends on (seed, trial, read, region, output), never on threads or chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.conv_inputs import KernelInput
from weakcell.emulator.engine.convolution import NOT_ROUNDED, compute_offsets
from weakcell.emulator.faults.deployment import Deployment, ReadPolicy, Sampling
from weakcell.emulator.faults.kernel_reads import LayerReads
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.kernels.arguments import GUIDE_BITS, Epilogue, MismatchModel, ReadSequence, SampledRows
from weakcell.emulator.kernels.weight_layouts import LANES, PackedInt1
from weakcell.emulator.plan.parameters import ParameterState
from weakcell.memmodels.sampling.sampler import Sampler

Array = npt.NDArray[Any]


class MismatchDistribution(NamedTuple):
    """Distributions of Bin(plus, p) - Bin(minus, p), as tables: one row for each number of mismatches from `first` on.

    Attributes:
        first: the number of mismatches of row 0.
        low: int64 (rows,), the smallest value of each row.
        cumulative: uint64 (rows, width), P(value <= low + j) in units of 2^-64.
        guide: int32 (rows, 64). For each value of the top 6 bits of a random word: how many entries are <= the smallest such word.
            A search may begin there.
    """

    first: int
    low: npt.NDArray[np.int64]
    cumulative: npt.NDArray[np.uint64]
    guide: npt.NDArray[np.int32]


class ThresholdSurvival(NamedTuple):
    """P(output = 1) for each output and each number of fault-free mismatches; the output is 1 if a random word is below it.

    For an output with d fault-free mismatches, the entry is table.reshape(-1)[starts + clip(columns - d, 0, width - 1)].

    Attributes:
        table: uint64 (limits, width), in units of 2^-64: P(sampled mismatches <= limit).
        starts: int64 (outputs,).
        columns: int64 (outputs,).
        fewest: the smallest number of fault-free mismatches in the table.
        most: the largest one.
    """

    table: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    fewest: int
    most: int


# ── where it applies ────────────────────────────────────────────────────────────────────────────────


def samples_outputs(layer: Layer, deployment: Deployment) -> bool:
    """Return whether a layer's outputs are sampled instead of its weights."""
    if deployment.sampling is not Sampling.OUTPUTS or deployment.faults is not None or not isinstance(layer, Convolution):
        return False
    return deployment.cached(("samples outputs", layer.output), lambda: _has_distribution(layer, deployment))


def _has_distribution(layer: Convolution, deployment: Deployment) -> bool:
    """Return whether each weight is used once per read, and its cells err independently at every read."""
    plan, policy = deployment.plan, deployment.policy
    if policy not in (ReadPolicy.IMAGE, ReadPolicy.ACCESS) or not plan.tensors[layer.weight].is_sign_packed:
        return False
    used_once = policy is ReadPolicy.ACCESS or plan.network.values[layer.output].height_width == (1, 1)
    not_shared = sum(layer.weight in other.tensor_names() for other in plan.network.layers) == 1
    stored = deployment.slots_of(layer)
    if not (used_once and not_shared and len(stored) == 1 and stored[0].slot.tensor == layer.weight):
        return False
    sampler = stored[0].sampler
    return sampler is not None and bool((sampler.terms["weak_row"] < 0).all())


def tensors_sampled_at_output(deployment: Deployment) -> tuple[str, ...]:
    """Return the weight tensors of the layers whose outputs are sampled."""
    layers = deployment.plan.network.layers
    return tuple(name for layer in layers if samples_outputs(layer, deployment) for name in layer.tensor_names("weight"))


def apply_permanent_errors(parameters: ParameterState, deployment: Deployment) -> None:
    """Apply permanent errors to weights whose per-read errors are sampled at the output."""
    for name in tensors_sampled_at_output(deployment):
        (part,) = deployment.slots[name]
        assert part.sampler is not None
        if part.sampler.matches_written:
            continue
        parameters.flip(name, part.slot.planes, part.sampler.baseline ^ part.sampler.written)


# ── sampling ────────────────────────────────────────────────────────────────────────────────────────


def sample_sums(layer: Convolution, kernel_input: KernelInput, reads: LayerReads) -> Array:
    """Return a layer's faulty int32 sums (n, H, W, O), without bias.

    Args:
        layer: the convolution, of packed signs.
        kernel_input: its prepared input.
        reads: the reads of its weights, which are in one slot.
    """
    height, width = reads.parameters.specs[layer.output].height_width
    sums = np.empty((len(kernel_input.activations), height, width, kernel_input.context.bias.size), dtype=np.int32)
    rows = sums.reshape(-1, sums.shape[3])
    for group in _sampling_groups(layer, kernel_input, reads):
        entry_points.draw_mismatches(group.counts, group.model, group.reads)
        rows[group.rows] = group.bits - 2 * group.counts
    return sums


def sample_signs(layer: Convolution, kernel_input: KernelInput, reads: LayerReads, threshold: Array, out: Array) -> None:
    """Fill `out` with the bits of sums >= threshold, of the same sums as `sample_sums`.

    Args:
        layer: the convolution, of packed signs.
        kernel_input: its prepared input.
        reads: the reads of its weights, which are in one slot.
        threshold: int32 (O,).
        out: uint64 (n, H, W, ceil(O / 64)).
    """
    (part,), patterns = reads.stored, kernel_input.context.border_patterns
    assert part.sampler is not None
    rates, rows = _combined_rates(part.sampler), out.reshape(-1, out.shape[3])
    if rates[0] == rates[1] and len(patterns) == 1 and patterns.all():
        _sample_signs_in_kernel(layer, kernel_input, reads, threshold, rows)
        return
    for group in _sampling_groups(layer, kernel_input, reads):
        limits, signs = (group.bits - threshold.astype(np.int64)) >> 1, np.empty_like(rows[group.rows])
        entry_points.draw_signs(group.counts, limits, group.model, group.reads, signs)
        rows[group.rows] = signs


def _sample_signs_in_kernel(
    layer: Convolution, kernel_input: KernelInput, reads: LayerReads, threshold: Array, rows: Array
) -> None:
    """Fill rows (pixels, words) with the same bits, where all windows are inside the image and all cells err alike."""
    context, parameters, (part,) = kernel_input.context, reads.parameters, reads.stored
    assert part.sampler is not None
    weights, rate = PackedInt1(parameters.values[layer.weight]), _combined_rates(part.sampler)[0]
    bits, (height, width) = context.border_patterns.size * context.inputs_per_tap, parameters.specs[layer.output].height_width
    limits = np.full(len(weights.values) * LANES, -1)
    limits[: threshold.size] = (bits - threshold.astype(np.int64)) >> 1
    # The range of mismatch counts is unknown in advance. Start with the previous run's range and widen it when the kernel
    # reports counts outside of it.
    pool, key, spread = parameters.plan.workspaces, ("mismatches", layer.output), 3 * math.isqrt(bits)
    low, high = pool.acquire(key, lambda: (bits // 2 - spread, bits // 2 + spread))
    numbers = np.arange(len(rows)) + reads.first * height * width
    sequence = ReadSequence(part.sampler.source, reads.deployment.trial, part.region.key.write, numbers)
    words, done, outside = rows.view(np.uint32)[:, : len(weights.values)], 0, np.zeros(2, dtype=np.int64)
    while done < len(rows):
        low, high = max(0, low // 64 * 64), min(bits, high // 64 * 64 + 63)
        survival = _threshold_survival(limits, bits, low, high, rate)
        start = SampledRows(done, outside)
        done = entry_points.sample_convolution_signs(kernel_input.activations, words, weights, context, survival, sequence, start)
        low, high = (low, high) if done == len(rows) else (min(low, int(outside[0])), max(high, int(outside[1])))
    pool.release(key, (low, high))
    reads.deployment.tally.read(part.slot.tensor, part.region.layout.bits * len(rows))


class _SamplingGroup(NamedTuple):
    """Output pixels with one border pattern, and what kernels need to sample their sums.

    Attributes:
        rows: index of these pixels among all pixels.
        bits: cells in a sum.
        counts: int32 (pixels, O), fault-free mismatches.
        model: how the mismatches are sampled.
        reads: the read of each pixel.
    """

    rows: Any
    bits: int
    counts: Array
    model: MismatchModel
    reads: ReadSequence


def _sampling_groups(layer: Convolution, kernel_input: KernelInput, reads: LayerReads) -> Iterator[_SamplingGroup]:
    (part,), x = reads.stored, kernel_input.activations
    sampler, weights, images = part.sampler, PackedInt1(reads.parameters.values[layer.weight]), len(x)
    assert sampler is not None
    context = kernel_input.context._replace(bias=np.zeros_like(kernel_input.context.bias))
    height, width = reads.parameters.specs[layer.output].height_width
    outputs, patterns, pattern_index = context.bias.size, context.border_patterns, context.row_table[1]
    sums = np.empty((images, height, width, outputs), dtype=np.int32)
    entry_points.convolution(x, sums, weights, context, Epilogue(compute_offsets(weights, context), NOT_ROUNDED))
    rows, rates = sums.reshape(-1, outputs), _combined_rates(sampler)
    numbers = np.arange(sums.size // outputs) + reads.first * height * width
    ones, ones_by_tap = np.zeros(len(rows), dtype=np.int64), np.zeros((outputs, patterns.shape[1]), dtype=np.int64)
    if rates[0] != rates[1]:
        ones = _ones_in_windows(kernel_input, (height, width))
        sums_by_tap = np.zeros((patterns.shape[1], len(weights.values) * LANES), dtype=np.int64)
        entry_points.add_weights_by_tap(weights, patterns.shape[1], sums_by_tap)
        ones_by_tap = sums_by_tap.T[:outputs]
    for index, inside in enumerate(patterns):
        chosen = slice(None) if len(patterns) == 1 else np.flatnonzero(np.tile(pattern_index, images) == index)
        bits = int(inside.sum()) * context.inputs_per_tap
        if len(rows):
            counts = rows[chosen]
            np.right_shift(np.subtract(bits, counts, out=counts), 1, out=counts)
            weight_ones = ones_by_tap[:, inside].sum(axis=1)
            model = MismatchModel(bits, ones[chosen], weight_ones, *_distributions(counts, bits, rates))
            sequence = ReadSequence(sampler.source, reads.deployment.trial, part.region.key.write, numbers[chosen])
            yield _SamplingGroup(chosen, bits, counts, model, sequence)
    reads.deployment.tally.read(part.slot.tensor, part.region.layout.bits * len(rows))


def _ones_in_windows(kernel_input: KernelInput, size: tuple[int, int]) -> Array:
    """Return the number of 1s in the window of each output pixel: int64 (n * H * W,). size: H and W."""
    (kh, kw), (sh, sw), (dh, dw) = kernel_input.window.kernel, kernel_input.window.stride, kernel_input.window.dilation
    ones = np.bitwise_count(kernel_input.activations).sum(axis=3, dtype=np.int64)
    views = np.lib.stride_tricks.sliding_window_view(ones, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(1, 2))
    views = views[:, ::sh, ::sw, ::dh, ::dw][:, : size[0], : size[1]]
    return np.ascontiguousarray(views.sum(axis=(3, 4)).reshape(-1))


# ── distributions ───────────────────────────────────────────────────────────────────────────────────


def _distributions(counts: Array, bits: int, rates: tuple[float, float]) -> tuple[MismatchDistribution, MismatchDistribution, int]:
    """Return the distributions for sums of `bits` cells with these fault-free mismatches.

    Returns:
        That of the errors of all cells; that of the first step, for the cells that store one of the values; that value, or -1 if
        there is no first step.
    """
    low, high, value = int(counts.min()), int(counts.max()), -1
    common, extra = split_rates(rates)
    first_step = binomial_distributions(0, 1, 0.0)
    if extra:
        value = int(rates[1] != common)
        first_step = binomial_distributions(0, bits, extra)
        reach = int(first_step.low.max()) + first_step.cumulative.shape[1]
        low, high = max(0, low - reach), min(bits, high + reach)
    return mismatch_distributions(bits, low // 64 * 64, min(bits, high // 64 * 64 + 63), common), first_step, value


def _combined_rates(sampler: Sampler) -> tuple[float, float]:
    """Return p01 and p10 of all error terms of a read, applied one after the other."""
    p01, p10 = 0.0, 0.0
    for a, b in sampler.terms["rates"]:
        p01, p10 = p01 * (1 - b) + (1 - p01) * a, p10 * (1 - a) + (1 - p10) * b
    return float(p01), float(p10)


def split_rates(rates: tuple[float, float]) -> tuple[float, float]:
    """Return (q, r) such that one of the rates is q and the other q (+) r = q + r - 2 q r, with r in [0, 1]."""
    common, other = sorted(rates, key=lambda p: abs(1.0 - 2.0 * p), reverse=True)
    return common, 0.0 if other == common else min(1.0, (other - common) / (1.0 - 2.0 * common))


@lru_cache(maxsize=64)
def mismatch_distributions(bits: int, low: int, high: int, p: float) -> MismatchDistribution:
    """Return the distributions of Bin(bits - d, p) - Bin(d, p) for d in low..high."""
    d = np.arange(low, high + 1)
    return _tabulate(low, bits - d, d, p)


@lru_cache(maxsize=16)
def binomial_distributions(low: int, high: int, p: float) -> MismatchDistribution:
    """Return the distributions of Bin(n, p) for n in low..high."""
    n = np.arange(low, high + 1)
    return _tabulate(low, n, np.zeros_like(n), p)


def _threshold_survival(limits: Array, bits: int, low: int, high: int, p: float) -> ThresholdSurvival:
    """Return the table for outputs that are 1 up to `limits` (outputs,) mismatches, and for low..high fault-free mismatches."""
    table, before = _survival_table(bits, low, high, p)
    starts = np.clip(limits - low - before, 0, len(table) - 1) * table.shape[1]
    return ThresholdSurvival(table, starts, limits - before, low, high)


@lru_cache(maxsize=16)
def _survival_table(bits: int, low: int, high: int, p: float) -> tuple[npt.NDArray[np.uint64], int]:
    """Return `ThresholdSurvival.table`, and `before`: row r is for the limit low + before + r.

    Column 0 is for limit - d = before, where the probability is 0.
    """
    distribution = mismatch_distributions(bits, low, high, p)
    last, before = distribution.cumulative.shape[1] - 1, int(distribution.low.min()) - 1
    distance = np.arange(before, int(distribution.low.max()) + last + 1)  # limit - d
    d = np.arange(low + before, high + distance[-1] + 1)[:, None] - distance
    row = np.clip(d - low, 0, high - low)
    column = distance - distribution.low[row]
    table = distribution.cumulative[row, np.clip(column, 0, last)]
    table[column < 0] = 0
    table[column >= last] = np.iinfo(np.uint64).max
    return table, before


def _tabulate(first: int, plus: Array, minus: Array, p: float) -> MismatchDistribution:
    """Return the distributions of Bin(plus, p) - Bin(minus, p), row by row; float64, exact to about 1e-15."""
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
    return MismatchDistribution(first, start_plus - start_minus - (width - 1) + below, cumulative, guide)


def _binomial_rows(n: Array, p: float) -> tuple[Array, Array]:
    """Return the first value of each row, and the probabilities from there on: all but less than 2^-64 of Bin(n, p)."""
    from scipy.stats import binom

    most = int(n.max())
    reach = math.ceil(10.0 * math.sqrt(most * p * (1.0 - p))) + 40
    width = min(2 * reach, most) + 1
    start = np.clip(np.rint(n * p).astype(np.int64) - reach, 0, most + 1 - width)
    return start, binom.pmf(start[:, None] + np.arange(width), n[:, None], p)
