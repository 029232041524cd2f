"""Windows and pads: ONNX attributes to a checked `Window`, and back.

ONNX lists pads as all beginnings, then all ends. Here they are (top, left, bottom, right).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.symbols import Array, Node, Pads
from weakcell.emulator.ir.values import Window
from weakcell.memmodels.errors import ModelError


def read_conv_window(node: Node, shape: tuple[int, ...], weight: tuple[int, ...], groups: int) -> Window:
    """Return the window of a Conv, after checking that input and weight fit."""
    asked = f"Importing {node}"
    out, inner, *kernel = weight
    if len(shape) == 2 and kernel[0] == 1:
        kernel = kernel[1:]
    if len(shape) != len(kernel) + 1:
        found = f"its input has the shape [N, {', '.join(map(str, shape))}] and its kernel {len(kernel)} axes"
        raise ModelError(asked, found, "1-D and 2-D convolutions are supported")
    if groups < 1 or inner * groups != shape[0] or out % groups:
        found = f"the weight has shape {list(weight)}, group is {groups} and the input has {shape[0]} channels"
        raise ModelError(asked, found, "Weight channels times group must equal the input's channels; export the model again")
    if list(node.attributes.get("kernel_shape", kernel)) != kernel:
        raise ModelError(asked, f"kernel_shape is not that of the weight, {kernel}", "Export the model again")
    return read_window(node, shape, tuple(kernel))


def read_window(node: Node, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """Read a window from a node's attributes and check it against the image.

    A signal (C, L) is an image of height 1, so a 1-D kernel gets the height 1.
    """
    given, ones = node.attributes, [1] * len(kernel)
    try:
        stride, dilation = list(given.get("strides", ones)), list(given.get("dilations", ones))
        pads = list(onnx_ops.explicit_pads(shape[1:], kernel, given))
        if len(shape) == 2:
            (length,), (begin, end) = kernel, pads
            kernel, stride, dilation, pads = (1, length), [1, *stride], [1, *dilation], [0, begin, 0, end]
        window = Window(
            _int_pair(kernel), _int_pair(stride), _int_pair(dilation), _int_quadruple(pads), bool(given.get("ceil_mode", 0))
        )
        fits = min(window.kernel) > 0 and min(window.stride) > 0 and min(window.dilation) > 0 and min(window.pads) >= 0
        fits = fits and min(window.output_shape(1, shape)) > 0
    except (ValueError, TypeError, ZeroDivisionError):
        fits = False
    if not fits:
        rank = len(shape) - 1
        found = f"its window does not fit an image of {' x '.join(map(str, shape[1:]))}"
        do = f"A {rank}-D window with {rank} strides, {rank} dilations and {2 * rank} pads is needed"
        raise ModelError(f"Importing {node}", found, do)
    return window


def _int_pair(x: Sequence[int]) -> tuple[int, int]:
    a, b = x
    return int(a), int(b)


def _int_quadruple(x: list[int]) -> tuple[int, int, int, int]:
    a, b, c, d = x
    return int(a), int(b), int(c), int(d)


def window_attributes(window: Window, rank: int) -> dict[str, Any]:
    """Return a window as the attributes of an ONNX pool.

    Args:
        window: of the pool.
        rank: number of spatial axes: 1 for signals, 2 for images.
    """
    pads = window.pads if rank == 2 else (window.pads[1], window.pads[3])
    return {
        "kernel_shape": list(window.kernel[-rank:]),
        "strides": list(window.stride[-rank:]),
        "dilations": list(window.dilation[-rank:]),
        "pads": list(pads),
        "ceil_mode": int(window.ceil_mode),
    }


def onnx_pads(pads: Pads, rank: int) -> Array:
    """Return pads as ONNX's Pad takes them.

    Args:
        pads: (top, left, bottom, right).
        rank: number of axes of a value, without the batch.
    """
    top, left, bottom, right = pads
    return np.array([0, 0, top, left, 0, 0, bottom, right] if rank == 3 else [0, 0, left, 0, 0, right], np.int64)


def padded_shape(shape: tuple[int, ...], pads: Pads) -> tuple[int, ...]:
    """Return the shape of an image (C, H, W) or signal (C, L) with its padding."""
    top, left, bottom, right = pads
    if len(shape) == 2:
        return shape[0], shape[1] + left + right
    return shape[0], shape[1] + top + bottom, shape[2] + left + right
