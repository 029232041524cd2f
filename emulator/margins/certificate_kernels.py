"""Counts of flips and of changed neurons for certificates: see `certificate.py`.

They import no other module of the emulator, so that a change elsewhere does not make their cached machine code invalid.
"""

from __future__ import annotations

import numpy as np

from weakcell.memmodels.compilation import compiled


@compiled
def fill_pixel_costs(weights, x, h, pivot, cap, out):  # type: ignore[no-untyped-def]
    """Compute the smallest number of flips in row o that changes [h > pivot]; cap + 1 where more than cap are needed.

    A flip moves h by 2 |x_k|.

    Args:
        weights: ±1, int64 (O, K).
        x: Windows of pixels, int64 (pixels, K).
        h: Sums, int64 (pixels, O).
        pivot: Thresholds, int64 (O,).
        cap: Largest number of interest.
        out: int64 (pixels, O).
    """
    largest = np.empty(cap, dtype=np.int64)
    for pixel in range(x.shape[0]):
        for o in range(weights.shape[0]):
            above = h[pixel, o] > pivot[o]
            distance = h[pixel, o] - pivot[o] if above else pivot[o] - h[pixel, o] + 1
            largest[:] = 0
            for k in range(x.shape[1]):
                gain = 2 * weights[o, k] * x[pixel, k] * (1 if above else -1)
                if gain <= largest[cap - 1]:
                    continue
                i = cap - 1
                while i > 0 and largest[i - 1] < gain:
                    largest[i] = largest[i - 1]
                    i -= 1
                largest[i] = gain
            cost = cap + 1
            for i in range(cap):
                distance -= largest[i]
                if distance <= 0:
                    cost = i + 1
                    break
            out[pixel, o] = cost


@compiled
def fill_pool_costs(costs, above, geometry, out):  # type: ignore[no-untyped-def]
    """Compute the smallest number of flips that changes the OR of a pooling window.

    Either all neurons above their threshold must fall, or one below it must rise. The neurons of a channel share their weights, so
    the fall that costs most is the bound.

    Args:
        costs: Flips that change each neuron, int64 (n, O, H, W).
        above: Whether each neuron is above its threshold, bool (n, O, H, W).
        geometry: Kernel, stride, dilation and pads of the window.
        out: int64 (n, O, H', W').
    """
    kernel, stride, dilation, pads = geometry
    for image in range(out.shape[0]):
        for o in range(out.shape[1]):
            for oy in range(out.shape[2]):
                for ox in range(out.shape[3]):
                    fall, rise, any_above = 0, np.int64(1) << 40, False
                    for ky in range(kernel[0]):
                        y = oy * stride[0] - pads[0] + ky * dilation[0]
                        for kx in range(kernel[1]):
                            x = ox * stride[1] - pads[1] + kx * dilation[1]
                            if not (0 <= y < costs.shape[2] and 0 <= x < costs.shape[3]):
                                continue
                            cost = costs[image, o, y, x]
                            if above[image, o, y, x]:
                                any_above = True
                                fall = max(fall, cost)
                            else:
                                rise = min(rise, cost)
                    out[image, o, oy, ox] = fall if any_above else rise


@compiled
def _count_by_cost(costs, wanted, most, out):  # type: ignore[no-untyped-def]
    """Count, for t = 0 … most, the wanted neurons of channel o whose cost is at most t: out (O, most + 1)."""
    out[:] = 0
    for o in range(costs.shape[0]):
        for p in range(costs.shape[1]):
            if wanted[o, p] and costs[o, p] <= most:
                out[o, costs[o, p]] += 1
        for t in range(1, most + 1):
            out[o, t] += out[o, t - 1]


@compiled
def _changed_shared(counts, changed, reached, budget, best):  # type: ignore[no-untyped-def]
    """Compute best[q], the largest number of neurons that q flips change if `changed` inputs of the layer are wrong.

    Flips are distributed over the channels in the worst way. A wrong input counts as one flip of every neuron that it reaches.

    Args:
        counts: See `_count_by_cost`, (O, T).
        changed: Number of wrong inputs.
        reached: Neurons of a channel that one input reaches.
        budget: Largest q.
        best: int64 (budget + 1,).
    """
    reach, end = changed * reached, counts.shape[1] - 1
    best[:] = 0
    for o in range(counts.shape[0]):
        if counts[o, end] == 0:
            continue
        for q in range(budget, -1, -1):  # downwards, so that best[q - flips] does not contain this channel yet
            most = 0
            for flips in range(q + 1):
                by_flips = counts[o, min(flips, end)]
                by_inputs = min(counts[o, min(flips + changed, end)] - by_flips, reach)
                most = max(most, by_flips + by_inputs + best[q - flips])
            best[q] = most


@compiled
def _changed_separate(counts, changed, budget, best):  # type: ignore[no-untyped-def]
    """Compute best[q] as `_changed_shared` for channels of one neuron each, cheapest first; counts (T,) over all channels."""
    end = counts.size - 1
    free = counts[min(changed, end)]
    best[:] = free
    left, bought = budget, free
    for price in range(1, end - changed + 1):
        for _ in range(counts[changed + price] - counts[changed + price - 1]):
            if price > left:
                return
            left -= price
            bought += 1
            best[budget - left :] = bought


@compiled
def count_changed_neurons(costs, wanted, before, reached, most, best):  # type: ignore[no-untyped-def]
    """Compute best[q], the largest number of wanted neurons that q flips in this layer and in earlier layers change.

    Args:
        costs: Flips that change each neuron, (O, P).
        wanted: Which neurons count, bool (O, P).
        before: before[q] is the largest number of wrong inputs that q flips in earlier layers cause.
        reached: Neurons of a channel that one input reaches.
        most: Largest cost of a neuron that can be changed.
        best: int64 (budget + 1,).
    """
    budget = best.size - 1
    separate = costs.shape[1] == 1
    shape = (1, costs.shape[0]) if separate else costs.shape
    counts = np.empty((shape[0], most + 1), dtype=np.int64)
    _count_by_cost(costs.reshape(shape), wanted.reshape(shape), most, counts)
    layer_best = np.empty(budget + 1, dtype=np.int64)
    best[:] = 0
    for earlier in range(budget + 1):
        if earlier and before[earlier] == before[earlier - 1]:
            continue  # one flip less causes as many wrong inputs
        part = layer_best[: budget - earlier + 1]
        if separate:
            _changed_separate(counts[0], before[earlier], budget - earlier, part)
        else:
            _changed_shared(counts, before[earlier], reached, budget - earlier, part)
        for q in range(earlier, budget + 1):
            best[q] = max(best[q], layer_best[q - earlier])
