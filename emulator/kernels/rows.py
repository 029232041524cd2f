"""Rows of a tile: output pixels in the order image, row, column, and the addresses of their windows and results."""

from __future__ import annotations

import numba

CHUNK = 96
"""Rows that pass by a block of weights before the next block comes; their activations stay in the first-level cache."""


@numba.njit(cache=True, nogil=True)
def row_addresses(x, out, stride, item, first, end, windows, results):  # type: ignore[no-untyped-def]
    """Byte addresses of pixels first..end: of their windows in x (n, h, w, C) and of their places in out (n, oh, ow, M).

    item: bytes of an element of x. windows, results: int64, filled to the end; entries behind `end` repeat the last pixel.
    """
    oh, ow = out.shape[1], out.shape[2]
    window_step, result_step = stride[1] * x.shape[3] * item, out.shape[3] * out.itemsize
    image, rest = divmod(first, oh * ow)
    oy, ox = divmod(rest, ow)
    window = x.ctypes.data + ((image * x.shape[1] + oy * stride[0]) * x.shape[2] + ox * stride[1]) * x.shape[3] * item
    result = out.ctypes.data + first * result_step
    for r in range(windows.size):
        windows[r], results[r] = window, result
        if first + r + 1 >= end:
            continue
        result += result_step
        ox += 1
        window += window_step
        if ox == ow:
            ox, oy = 0, oy + 1
            if oy == oh:
                oy, image = 0, image + 1
            window = x.ctypes.data + (image * x.shape[1] + oy * stride[0]) * x.shape[2] * x.shape[3] * item
