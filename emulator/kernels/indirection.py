"""Addresses of activations: where the windows of output pixels lie, so that convolutions need no im2col copy.

Rows of a tile are output pixels in the order image, row, column. A window is read as contiguous runs: one run per kernel row if its
taps are neighbours in memory, otherwise one run per tap (XNNPACK calls such tables *indirection buffers*).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from weakcell.emulator.kernels.arguments import Runs
from weakcell.emulator.kernels.isa import I64, activation_bytes, broadcast, i64, is_depthwise, load, store
from weakcell.memmodels.compilation import compiled
from weakcell.memmodels.sampling.pointers import data_ptr

ROWS_PER_CHUNK = 96
"""Rows that are multiplied by one micropanel before the next micropanel; their activations stay in the first-level cache."""

SLIDING = 3
"""Columns of a depthwise window whose micro-kernel reuses the columns that neighbouring windows share."""


@compiled
def contiguous_runs(x, weights, geometry, groups):  # type: ignore[no-untyped-def]
    """Split the window of an output pixel into contiguous runs of memory.

    Taps of a kernel row are contiguous unless they are dilated or belong to one of several groups. A depthwise window has one run
    for each tap, column by column; each column is filled up to whole words with its first tap.

    Args:
        x: activations (n, h, w, C) with their padding.
        weights: the layout record.
        geometry: `ConvContext.geometry`.
        groups: groups of the convolution; 1 for depthwise weights.

    Returns:
        Runs: byte offsets from the window's address, and the weight words of each run. For depthwise weights the words are SLIDING
        if neighbouring windows overlap in all but one column, otherwise 1.
    """
    kernel, stride, dilation, _ = geometry
    pixel = x.shape[3] * x.itemsize
    if is_depthwise(weights):
        height = weights.values.shape[1] // kernel[1] * 4
        tap_offsets = np.zeros(kernel[1] * height, dtype=np.int64)
        for tap in range(tap_offsets.size):
            kx, ky = divmod(tap, height)
            tap_offsets[tap] = ((ky if ky < kernel[0] else 0) * dilation[0] * x.shape[2] + kx * dilation[1]) * pixel
        slides = kernel[1] == SLIDING and height == 4 and stride[1] == dilation[1]
        return Runs(tap_offsets, SLIDING if slides else 1)
    taps = kernel[1] if dilation[1] == 1 and groups == 1 else 1
    offsets = np.empty(kernel[0] * kernel[1] // taps, dtype=np.int64)
    for i in range(offsets.size):
        ky, kx = divmod(i * taps, kernel[1])
        offsets[i] = (ky * dilation[0] * x.shape[2] + kx * dilation[1]) * pixel
    return Runs(offsets, -(-(taps * pixel // groups) // activation_bytes(weights)))


@intrinsic  # type: ignore[untyped-decorator]
def _add_to_all(typingctx, source_ptr, addend, target_ptr, count):  # type: ignore[no-untyped-def]
    """target[i] = source[i] + addend for `count` int64 values.

    _add_to_all(source_ptr, addend, target_ptr, count) -> int64; all arguments are int64.

    Written out because compilers do not vectorize it, and around a small tile nothing is called for more rows.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source_ptr, addend, target_ptr, count = args
        vector = ir.VectorType(I64, 8)
        addends = broadcast(builder, addend, vector)

        def add(i: Any, kind: Any, by: Any) -> None:
            offset = builder.mul(i, i64(8))
            store(builder, builder.add(load(builder, source_ptr, offset, kind), by), builder.add(target_ptr, offset), 8)

        whole = builder.and_(count, i64(-8))
        with cgutils.for_range_slice(builder, i64(0), whole, i64(8)) as (i, _):
            add(i, vector, addends)
        with cgutils.for_range_slice(builder, whole, count, i64(1)) as (i, _):
            add(i, I64, addend)
        return i64(0)

    return types.int64(*[types.int64] * 4), codegen


@compiled
def row_addresses(x, table, rows, repeat, window_ptrs, patterns):  # type: ignore[no-untyped-def]
    """Fill in the window addresses and border patterns of a range of rows.

    Rows first … stop - 1 are counted over images.

    Args:
        x: activations (n, h, w, C) with their padding.
        table: `ConvContext.row_table`.
        rows: (first, stop).
        repeat: rows that make one result. Entries behind the last row repeat the last `repeat` rows.
        window_ptrs: int64, written to its end.
        patterns: int64 of the same size, written to its end.
    """
    first, stop = rows
    image_bytes, image_rows = x.shape[1] * x.shape[2] * x.shape[3] * x.itemsize, table.shape[1]
    r, end = 0, min(stop - first, window_ptrs.size)
    x_ptr, table_ptr, windows_ptr, patterns_ptr = data_ptr(x), data_ptr(table), data_ptr(window_ptrs), data_ptr(patterns)
    image, row = divmod(first, image_rows)
    while r < end:
        count = min(end - r, image_rows - row)
        _add_to_all(table_ptr + row * 8, x_ptr + image * image_bytes, windows_ptr + r * 8, count)
        _add_to_all(table_ptr + (image_rows + row) * 8, 0, patterns_ptr + r * 8, count)
        r, row, image = r + count, 0, image + 1
    for i in range(end, window_ptrs.size):
        window_ptrs[i], patterns[i] = window_ptrs[i - repeat], patterns[i - repeat]
