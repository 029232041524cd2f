"""Pools over windows of channels-last values. Padding never wins a maximum and adds nothing to a sum.

geometry: ((kh, kw), (sh, sw), (dh, dw), (top, left, bottom, right)): kernel size, stride, dilation and padding.
"""

from __future__ import annotations

import numpy as np

from weakcell.memmodels.compilation import compiled


@compiled
def max_pool(x, geometry, out):  # type: ignore[no-untyped-def]
    """Take the maximum of each window.

    Args:
        x: codes (n, h, w, C).
        geometry: see the module.
        out: (n, oh, ow, C) of the same dtype, written.
    """
    kernel, stride, dilation, pads = geometry
    for image in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                seen = False
                for ky in range(kernel[0]):
                    iy = oy * stride[0] - pads[0] + ky * dilation[0]
                    if iy < 0 or iy >= x.shape[1]:
                        continue
                    for kx in range(kernel[1]):
                        ix = ox * stride[1] - pads[1] + kx * dilation[1]
                        if ix < 0 or ix >= x.shape[2]:
                            continue
                        for c in range(x.shape[3]):
                            if not seen or x[image, iy, ix, c] > out[image, oy, ox, c]:
                                out[image, oy, ox, c] = x[image, iy, ix, c]
                        seen = True


@compiled
def or_pool(x, geometry, out):  # type: ignore[no-untyped-def]
    """OR the packed ±1 values of each window, which is their maximum.

    Args:
        x: uint64 (n, h, w, words).
        geometry: see the module.
        out: uint64 (n, oh, ow, words), which holds zeros; written.
    """
    kernel, stride, dilation, pads = geometry
    for image in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ky in range(kernel[0]):
                iy = oy * stride[0] - pads[0] + ky * dilation[0]
                if not 0 <= iy < x.shape[1]:
                    continue
                for kx in range(kernel[1]):
                    shift = kx * dilation[1] - pads[1]  # output columns start..end read a column of x through this tap
                    start = max(0, -(shift // stride[1]))
                    end = min(out.shape[2], (x.shape[2] - 1 - shift) // stride[1] + 1)
                    for ox in range(start, end):
                        for c in range(x.shape[3]):
                            out[image, oy, ox, c] |= x[image, iy, ox * stride[1] + shift, c]


@compiled
def sum_pool(x, zero_point, geometry, include_pad, out, counts):  # type: ignore[no-untyped-def]
    """Sum x - zero_point over each window and count its elements.

    Args:
        x: codes (n, h, w, C).
        zero_point: int.
        geometry: see the module.
        include_pad: whether padding counts.
        out: int32 (n, oh, ow, C), written.
        counts: integers (oh, ow), written.
    """
    kernel, stride, dilation, pads = geometry
    height, width = x.shape[1], x.shape[2]
    out[:] = 0
    counts[:] = 0
    for oy in range(out.shape[1]):
        for ox in range(out.shape[2]):
            for tap in range(kernel[0] * kernel[1]):
                iy = oy * stride[0] - pads[0] + tap // kernel[1] * dilation[0]
                ix = ox * stride[1] - pads[1] + tap % kernel[1] * dilation[1]
                inside = 0 <= iy < height and 0 <= ix < width
                counts[oy, ox] += inside or (include_pad and iy < height + pads[2] and ix < width + pads[3])
    for image in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                to = out[image, oy, ox]
                for tap in range(kernel[0] * kernel[1]):
                    iy = oy * stride[0] - pads[0] + tap // kernel[1] * dilation[0]
                    ix = ox * stride[1] - pads[1] + tap % kernel[1] * dilation[1]
                    if 0 <= iy < height and 0 <= ix < width:
                        for c in range(x.shape[3]):
                            to[c] += np.int32(x[image, iy, ix, c]) - np.int32(zero_point)
