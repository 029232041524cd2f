"""Kernels of `certificate`: how many neurons a budget of flips can turn, and how many flips that takes to end a prediction."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def pixel_costs(weights, x, h, pivot, cap, out):  # type: ignore[no-untyped-def]
    """out[place, o] = flips in row o that change [h > pivot], at least; cap + 1 where more than cap are needed.

    weights: ±1 (O, K); x (places, K), h and out (places, O), pivot (O,): int64. A flip moves h by 2 |x_k|.
    """
    largest = np.empty(cap, dtype=np.int64)
    for place in range(x.shape[0]):
        for o in range(weights.shape[0]):
            above = h[place, o] > pivot[o]
            need = h[place, o] - pivot[o] if above else pivot[o] - h[place, o] + 1
            largest[:] = 0
            for k in range(x.shape[1]):
                gain = 2 * weights[o, k] * x[place, k] * (1 if above else -1)
                if gain <= largest[cap - 1]:
                    continue
                i = cap - 1
                while i > 0 and largest[i - 1] < gain:
                    largest[i] = largest[i - 1]
                    i -= 1
                largest[i] = gain
            cost = cap + 1
            for i in range(cap):
                need -= largest[i]
                if need <= 0:
                    cost = i + 1
                    break
            out[place, o] = cost


@numba.njit(cache=True, nogil=True)
def pool_costs(costs, above, geometry, out):  # type: ignore[no-untyped-def]
    """Flips that change the OR of a window, at least: all neurons that are above must fall, or one that is not must rise.

    costs, above (n, O, H, W) -> out (n, O, H', W'). Neurons of a channel share their weights, so the dearest fall is the bound.
    """
    kernel, stride, dilation, pads = geometry
    for image in range(out.shape[0]):
        for o in range(out.shape[1]):
            for oy in range(out.shape[2]):
                for ox in range(out.shape[3]):
                    fall, rise, one = 0, np.int64(1) << 40, False
                    for ky in range(kernel[0]):
                        y = oy * stride[0] - pads[0] + ky * dilation[0]
                        for kx in range(kernel[1]):
                            x = ox * stride[1] - pads[1] + kx * dilation[1]
                            if not (0 <= y < costs.shape[2] and 0 <= x < costs.shape[3]):
                                continue
                            cost = costs[image, o, y, x]
                            if above[image, o, y, x]:
                                one = True
                                fall = max(fall, cost)
                            else:
                                rise = min(rise, cost)
                    out[image, o, oy, ox] = fall if one else rise


@numba.njit(cache=True, nogil=True)
def _counts(costs, wanted, most, out):  # type: ignore[no-untyped-def]
    """out[o, t] = wanted neurons of channel o that cost at most t, t = 0 … most. costs, wanted: (O, P)."""
    out[:] = 0
    for o in range(costs.shape[0]):
        for p in range(costs.shape[1]):
            if wanted[o, p] and costs[o, p] <= most:
                out[o, costs[o, p]] += 1
        for t in range(1, most + 1):
            out[o, t] += out[o, t - 1]


@numba.njit(cache=True, nogil=True)
def _turned(counts, changed, touched, budget, best):  # type: ignore[no-untyped-def]
    """best[q] = neurons, at most, that q flips in a layer's weights turn if `changed` of its inputs are wrong, q = 0 … budget.

    counts (O, T): see `_counts`. touched: neurons of a channel that one input reaches. A wrong input is worth one flip of every
    neuron that it reaches; flips are spread over the channels as well as can be.
    """
    reach, end = changed * touched, counts.shape[1] - 1
    best[:] = 0
    for o in range(counts.shape[0]):
        if counts[o, end] == 0:
            continue
        for q in range(budget, -1, -1):  # from above, so that best[q - own] does not know this channel yet
            top = 0
            for own in range(q + 1):
                alone = counts[o, min(own, end)]
                found = alone + min(counts[o, min(own + changed, end)] - alone, reach) + best[q - own]
                top = max(top, found)
            best[q] = top


@numba.njit(cache=True, nogil=True)
def _turned_apart(counts, changed, budget, best):  # type: ignore[no-untyped-def]
    """The same for channels of one neuron each, cheapest first: counts (T,) of them all."""
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


@numba.njit(cache=True, nogil=True)
def turned_through(costs, wanted, before, touched, most, best):  # type: ignore[no-untyped-def]
    """best[q] = wanted neurons of a layer that q flips in it and in the layers before turn, at most.

    before[q]: wrong inputs that q flips in the layers before make, at most.
    """
    budget = best.size - 1
    apart = costs.shape[1] == 1
    shape = (1, costs.shape[0]) if apart else costs.shape
    counts = np.empty((shape[0], most + 1), dtype=np.int64)
    _counts(costs.reshape(shape), wanted.reshape(shape), most, counts)
    own = np.empty(budget + 1, dtype=np.int64)
    best[:] = 0
    for earlier in range(budget + 1):
        if earlier and before[earlier] == before[earlier - 1]:
            continue  # the same wrong inputs for one flip less
        part = own[: budget - earlier + 1]
        if apart:
            _turned_apart(counts[0], before[earlier], budget - earlier, part)
        else:
            _turned(counts, before[earlier], touched, budget - earlier, part)
        for q in range(earlier, budget + 1):
            best[q] = max(best[q], own[q - earlier])


@numba.njit(cache=True, nogil=True)
def fewest_flips(best, gap, scale):  # type: ignore[no-untyped-def]
    """The least number of flips in the whole network that may close a gap; best.size if it is more than the budget.

    best[q]: inputs of the last layer that q flips before it turn against the winner; each is worth 4, a flip in the last layer 2.
    """
    for flips in range(best.size):
        for early in range(flips + 1):
            if (4 * best[early] + 2 * (flips - early)) * scale >= gap:
                return flips
    return best.size
