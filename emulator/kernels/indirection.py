"""Rows of a tile: output pixels in the order image, row, column, and where their windows and results lie."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from weakcell.emulator.kernels.weight_layouts import DepthwiseInt8x4, PackedInt1, subbyte_slots, word_bytes

CHUNK = 96
"""Rows that pass by a block of weights before the next block comes; their activations stay in the first-level cache."""


SLIDING = 3
"""Columns of a depthwise window whose tile goes from one to the next."""


def bytes_met(weights: Any) -> int:
    """Bytes of activations that one word of weights meets."""
    return word_bytes(type(weights)) * subbyte_slots(type(weights))


@overload(bytes_met)  # type: ignore[untyped-decorator]
def _bytes_met(weights):  # type: ignore[no-untyped-def]
    count = word_bytes(weights.instance_class) * subbyte_slots(weights.instance_class)
    return lambda weights: count


def new_sums(weights: Any, rows: int, lanes: int) -> Any:
    """Room for sums of a form of weights."""
    return np.empty((rows, lanes), dtype=np.int64 if isinstance(weights, PackedInt1) else np.int32)


@overload(new_sums)  # type: ignore[untyped-decorator]
def _new_sums(weights, rows, lanes):  # type: ignore[no-untyped-def]
    kind = np.int64 if weights.instance_class is PackedInt1 else np.int32
    return lambda weights, rows, lanes: np.empty((rows, lanes), dtype=kind)


def is_depthwise(weights: Any) -> bool:
    """Whether every output channel sees one input channel only."""
    return isinstance(weights, DepthwiseInt8x4)


@overload(is_depthwise)  # type: ignore[untyped-decorator]
def _is_depthwise(weights):  # type: ignore[no-untyped-def]
    depthwise = weights.instance_class is DepthwiseInt8x4
    return lambda weights: depthwise


@numba.njit(cache=True, nogil=True)
def contiguous_runs(x, weights, geometry, groups):  # type: ignore[no-untyped-def]
    """Byte offsets of the contiguous runs of a window, and the words of weights in each: one per kernel row, or one per tap.

    x: (n, h, w, C) with its border. Taps lie beside one another unless they are dilated, or belong to one group of several. A
    depthwise window has one stretch for each tap, column by column, each filled up with its first to whole words; in place of a
    length comes SLIDING where windows share all columns but one with those beside them, else 1.
    """
    kernel, stride, dilation, _ = geometry
    pixel = x.shape[3] * x.itemsize
    if is_depthwise(weights):
        deep = weights.values.shape[1] // kernel[1] * 4
        places = np.zeros(kernel[1] * deep, dtype=np.int64)
        for place in range(places.size):
            kx, ky = divmod(place, deep)
            places[place] = ((ky if ky < kernel[0] else 0) * dilation[0] * x.shape[2] + kx * dilation[1]) * pixel
        slides = kernel[1] == SLIDING and deep == 4 and stride[1] == dilation[1]
        return places, SLIDING if slides else 1
    taps = kernel[1] if dilation[1] == 1 and groups == 1 else 1
    offsets = np.empty(kernel[0] * kernel[1] // taps, dtype=np.int64)
    for i in range(offsets.size):
        ky, kx = divmod(i * taps, kernel[1])
        offsets[i] = (ky * dilation[0] * x.shape[2] + kx * dilation[1]) * pixel
    return offsets, -(-(taps * pixel // groups) // bytes_met(weights))


@intrinsic  # type: ignore[untyped-decorator]
def _add_to_all(typingctx, source, base, to, count):  # type: ignore[no-untyped-def]
    """_add_to_all(source, base, to, count) -> int64: `count` integers of 64 bits plus `base`; source, to: their addresses, int64.

    Written out because compilers do not make vectors of it, and there are more rows than anything else around a small tile.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source, base, to, count = args
        word, eight = ir.IntType(64), ir.VectorType(ir.IntType(64), 8)
        lone, nothing = ir.Constant(eight, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
        bases = builder.shuffle_vector(builder.insert_element(lone, base, ir.Constant(ir.IntType(32), 0)), lone, nothing)

        def add(i: Any, kind: Any, by: Any) -> None:
            place = builder.mul(i, ir.Constant(word, 8))
            loaded = builder.load(builder.inttoptr(builder.add(source, place), kind.as_pointer()))
            loaded.align = 8
            builder.store(builder.add(loaded, by), builder.inttoptr(builder.add(to, place), kind.as_pointer())).align = 8

        zero, whole = ir.Constant(word, 0), builder.and_(count, ir.Constant(word, -8))
        with cgutils.for_range_slice(builder, zero, whole, ir.Constant(word, 8)) as (i, _):
            add(i, eight, bases)
        with cgutils.for_range_slice(builder, whole, count, ir.Constant(word, 1)) as (i, _):
            add(i, word, base)
        return zero

    return types.int64(*[types.int64] * 4), codegen


@numba.njit(cache=True, nogil=True)
def row_addresses(x, table, first, end, taps, windows, places):  # type: ignore[no-untyped-def]
    """Addresses of the windows in x (n, h, w, C), and places, of rows first..end, counted over images.

    table: (2, rows of an image): the byte offset of a row's window in its image, and its place. windows, places: int64, filled to
    the end; entries behind `end` repeat the last `taps` rows, which make one result.
    """
    size, rows, r, stop = x.shape[1] * x.shape[2] * x.shape[3] * x.itemsize, table.shape[1], 0, min(end - first, windows.size)
    at_x, at_table, at_windows, at_places = x.ctypes.data, table.ctypes.data, windows.ctypes.data, places.ctypes.data
    image, row = divmod(first, rows)
    while r < stop:
        count = min(stop - r, rows - row)
        _add_to_all(at_table + row * 8, at_x + image * size, at_windows + r * 8, count)
        _add_to_all(at_table + (rows + row) * 8, 0, at_places + r * 8, count)
        r, row, image = r + count, 0, image + 1
    for i in range(stop, windows.size):
        windows[i], places[i] = windows[i - taps], places[i - taps]
