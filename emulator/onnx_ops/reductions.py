"""Reductions, products, convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from weakcell.emulator.onnx_ops.movement import axes_of
from weakcell.emulator.onnx_ops.registry import (
    OPERATORS,
    Array,
    Attributes,
    Inputs,
    claim,
    given,
    ints,
    optional,
    register,
    register_several,
    text,
)


def _reduction(name: str, function: Callable[..., Any], empty: Callable[[Any], Any] | None = None) -> None:
    """Register a reduction over axes.

    `empty` gives the result of no elements where NumPy has none.
    """

    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        """Reduce the first input."""
        x, axes = given(inputs[0]), axes_of(inputs, attributes)
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return x
        options: dict[str, Any] = {} if empty is None else {"initial": empty(x.dtype)}
        along = tuple(axes) if axes else None
        left = normalize_axis_tuple(along, x.ndim) if along else range(x.ndim)
        claim([n for axis, n in enumerate(x.shape) if axis not in left], x)  # a sum of nothing can be larger than nothing
        return np.asarray(function(x, axis=along, keepdims=bool(attributes.get("keepdims", 1)), **options), x.dtype)

    OPERATORS[name] = run


def lowest(dtype: Any) -> Any:
    """Return the smallest value of a NumPy type, -inf for floats."""
    if dtype.kind == "b":
        return False
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _highest(dtype: Any) -> Any:
    if dtype.kind == "b":
        return True
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


_reduction("ReduceMax", np.max, lowest)
_reduction("ReduceMin", np.min, _highest)
_reduction("ReduceMean", np.mean)
_reduction("ReduceProd", np.prod)
_reduction("ReduceSum", np.sum)
_reduction("ReduceL1", lambda x, **how: np.sum(np.abs(x), **how))
_reduction("ReduceL2", lambda x, **how: np.sqrt(np.sum(np.square(x), **how)))
_reduction("ReduceLogSum", lambda x, **how: np.log(np.sum(x, **how)))
_reduction("ReduceLogSumExp", np.logaddexp.reduce)
_reduction("ReduceSumSquare", lambda x, **how: np.sum(np.square(x), **how))


@register("ArgMax")
def _arg_max(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return _arg(given(inputs[0]), attributes, np.argmax)


@register("ArgMin")
def _arg_min(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return _arg(given(inputs[0]), attributes, np.argmin)


def _arg(x: Array, attributes: Attributes, function: Callable[..., Any]) -> Array:
    axis = int(attributes.get("axis", 0)) % x.ndim
    if attributes.get("select_last_index", 0):
        result = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
    else:
        result = function(x, axis=axis)
    return np.asarray(np.expand_dims(result, axis) if attributes.get("keepdims", 1) else result, np.int64)


@register_several("TopK")
def _top_k(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    """TopK (https://onnx.ai/onnx/operators/onnx__TopK.html).

    Of equal values, the lower index comes first.
    """
    x = given(inputs[0])
    count = ints(inputs[1])[0] if len(inputs) > 1 else int(attributes["k"])
    axis = int(attributes.get("axis", -1)) % x.ndim
    if not 0 <= count <= x.shape[axis]:
        raise ValueError(f"k is {count}, the axis has {x.shape[axis]} elements")
    if attributes.get("largest", 1):
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    order = np.take(order, np.arange(count), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


@register("MatMul")
def _matmul(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.asarray(np.matmul(given(inputs[0]), given(inputs[1])))


@register("Einsum")
def _einsum(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """Einsum (https://onnx.ai/onnx/operators/onnx__Einsum.html)."""
    arrays = [given(x) for x in inputs]
    equation = text(attributes, "equation", "").replace(" ", "")
    terms, _, out = equation.partition("->")
    sizes: dict[str, int] = {}
    for term, x in zip(terms.split(","), arrays, strict=True):
        if "." not in term and len(term) == x.ndim:
            sizes |= dict(zip(term, x.shape, strict=True))
    if "." not in equation and "->" in equation:
        claim([sizes.get(label, 1) for label in out], *arrays)
    return np.asarray(np.einsum(equation, *arrays, optimize=len(arrays) == 2))  # no products between more operands


@register("Gemm")
def _gemm(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    a, b = given(inputs[0]), given(inputs[1])
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    y = (a @ b) * a.dtype.type(attributes.get("alpha", 1.0))
    c = inputs[2] if len(inputs) > 2 else None
    return np.asarray(y if c is None else y + c * a.dtype.type(attributes.get("beta", 1.0)))


@register("Conv")
def _conv(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, w = given(inputs[0]), given(inputs[1])
    bias = inputs[2] if len(inputs) > 2 else None
    y = convolve(x, w, attributes)
    return np.asarray(y if bias is None else y + bias.reshape(-1, *[1] * (x.ndim - 2)), x.dtype)


def convolve(x: Array, w: Array, attributes: Attributes) -> Array:
    """Return the sums of a convolution of any rank, without bias."""
    groups = int(attributes.get("group", 1))
    windows = windows_of(x, w.shape[2:], attributes, 0.0)[0]
    n, _, *size = windows.shape[: x.ndim]
    columns = windows.reshape(n, groups, -1, *windows.shape[2:])
    kernel = w.reshape(groups, -1, *w.shape[1:])
    spatial = x.ndim - 2
    output_axes = list(range(3, 3 + spatial))
    kernel_axes = list(range(3 + spatial, 3 + 2 * spatial))
    y = np.einsum(
        columns, [0, 1, 2, *output_axes, *kernel_axes], kernel, [1, 49, 2, *kernel_axes], [0, 1, 49, *output_axes], optimize=True
    )
    return np.asarray(y.reshape(n, w.shape[0], *size))


class TransposedGeometry(NamedTuple):
    """A ConvTranspose as a Conv of stride 1, with zeros between the input elements.

    Attributes:
        strides: distance of the input's elements, one for each axis.
        dilations: of the kernel.
        conv_pads: padding of the Conv, at the beginning of every axis, then at its end. A negative one crops.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    conv_pads: tuple[int, ...]


def transposed_geometry(size: Sequence[int], kernel: Sequence[int], attributes: Attributes) -> TransposedGeometry:
    """Return the geometry of a ConvTranspose.

    Reference: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html.

    Args:
        size: spatial shape of the input.
        kernel: spatial shape of the weight.
        attributes: of the node.

    Raises:
        ValueError: the attributes do not fit.
    """
    ones, zeros = [1] * len(kernel), [0] * len(kernel)
    strides, dilations = ints(attributes.get("strides", ones)), ints(attributes.get("dilations", ones))
    extra, pads = ints(attributes.get("output_padding", zeros)), ints(attributes.get("pads", zeros * 2))
    mode, wanted = text(attributes, "auto_pad", "NOTSET"), attributes.get("output_shape")
    if any(len(x) != len(kernel) for x in (size, strides, dilations, extra)) or len(pads) != 2 * len(kernel):
        raise ValueError(f"its strides, dilations or pads are not those of {len(kernel)} axes")
    if ints(attributes.get("kernel_shape", kernel)) != ints(kernel) or min(*strides, *dilations, *size, *kernel) < 1:
        raise ValueError(f"its kernel, strides and dilations do not fit a weight of {ints(kernel)}")
    natural = [s * (n - 1) + a + d * (k - 1) + 1 for n, k, s, d, a in zip(size, kernel, strides, dilations, extra, strict=True)]
    heads, tails = pads[: len(kernel)], pads[len(kernel) :]
    if wanted is not None or mode.startswith("SAME"):
        targets = ints(wanted)[-len(kernel) :] if wanted is not None else [n * s for n, s in zip(size, strides, strict=True)]
        totals = [max(0, n - t) for n, t in zip(natural, targets, strict=True)]
        heads = [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in totals]
        if wanted is None:  # onnxruntime: SAME never makes the output larger
            targets = [n - t for n, t in zip(natural, totals, strict=True)]
        tails = [n - t - h for n, t, h in zip(natural, targets, heads, strict=True)]
    elif mode == "VALID":
        heads, tails = zeros, zeros
    spans = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    begin = [r - h for r, h in zip(spans, heads, strict=True)]
    end = [r - t + a for r, t, a in zip(spans, tails, extra, strict=True)]
    if min(s * (n - 1) + 1 + b + e - r for n, s, b, e, r in zip(size, strides, begin, end, spans, strict=True)) < 1:
        raise ValueError("its pads leave nothing of the output")
    return TransposedGeometry(tuple(strides), tuple(dilations), (*begin, *end))


@register("ConvTranspose")
def _conv_transpose(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """ConvTranspose: a Conv of the input with zeros between its elements."""
    x, w, bias = given(inputs[0]), given(inputs[1]), optional(inputs, 2)
    groups = int(attributes.get("group", 1))
    strides, dilations, pads = transposed_geometry(x.shape[2:], w.shape[2:], attributes)
    spatial = w.ndim - 2
    spread = np.zeros(claim((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True))), x), x.dtype)
    everything: tuple[slice, ...] = (slice(None), slice(None))
    spread[everything + tuple(slice(None, None, s) for s in strides)] = x
    crop = tuple(slice(max(0, -pads[i]), spread.shape[2 + i] + min(0, pads[spatial + i])) for i in range(spatial))
    mirrored = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2).reshape(-1, w.shape[0] // groups, *w.shape[2:])
    mirrored = mirrored[everything + (slice(None, None, -1),) * spatial]
    conv = {"group": groups, "dilations": dilations, "pads": [max(0, p) for p in pads]}
    y = convolve(spread[everything + crop], mirrored, conv)
    return np.asarray(y if bias is None else y + bias.reshape(-1, *[1] * spatial), x.dtype)


@register_several("MaxPool")
def _max_pool(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    """MaxPool; Indices count in the whole flattened input (`storage_order`)."""
    x, kernel = given(inputs[0]), tuple(attributes["kernel_shape"])
    windows, inner = windows_of(x, kernel, attributes, lowest(x.dtype))
    largest = np.asarray(windows.max(inner), x.dtype)
    if outputs < 2:
        return (largest,)
    order: Any = "F" if attributes.get("storage_order", 0) else "C"
    area = math.prod(x.shape[2:])
    positions = np.arange(area).reshape(x.shape[2:], order=order)
    positions = positions + area * np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(kernel))
    padded = {**attributes, "pads": explicit_pads(x.shape[2:], kernel, attributes), "auto_pad": "NOTSET"}
    window_positions, _ = windows_of(positions, kernel, padded, -1)
    flat = (*windows.shape[: x.ndim], -1)
    which = np.where(window_positions >= 0, windows, lowest(x.dtype)).reshape(flat).argmax(-1)
    return largest, np.take_along_axis(window_positions.reshape(flat), which[..., None], -1)[..., 0]


@register("AveragePool")
def _average_pool(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    kernel = tuple(attributes["kernel_shape"])
    windows, inner = windows_of(x, kernel, attributes, 0.0)
    if attributes.get("count_include_pad", 0) and not attributes.get("ceil_mode", 0):
        return np.asarray(windows.sum(inner) / x.dtype.type(math.prod(kernel)), x.dtype)
    inside = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if attributes.get("count_include_pad", 0):
        pads = list(zip(*np.reshape(explicit_pads(x.shape[2:], kernel, attributes), (2, -1)).tolist(), strict=True))
        inside = np.pad(inside, [(0, 0), (0, 0), *pads], constant_values=1)
        attributes = {**attributes, "pads": [0] * (2 * len(kernel)), "auto_pad": "NOTSET"}
    total = windows.sum(inner)
    counts = windows_of(inside, kernel, attributes, 0.0)[0].sum(inner)
    return np.asarray(total / counts[(slice(None), slice(None), *map(slice, total.shape[2:]))], x.dtype)


@register("LpPool")
def _lp_pool(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, p = given(inputs[0]), int(attributes.get("p", 2))
    windows, inner = windows_of(np.abs(x), tuple(attributes["kernel_shape"]), attributes, 0.0)
    return np.asarray(np.sum(windows**p, inner) ** (1 / p), x.dtype)


@register("GlobalLpPool")
def _global_lp(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, p = given(inputs[0]), int(attributes.get("p", 2))
    return np.asarray(np.sum(np.abs(x) ** p, tuple(range(2, x.ndim)), keepdims=True) ** (1 / p), x.dtype)


@register("GlobalAveragePool")
def _global_average(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    return np.asarray(x.mean(tuple(range(2, x.ndim)), keepdims=True), x.dtype)


@register("GlobalMaxPool")
def _global_max(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    return np.asarray(x.max(tuple(range(2, x.ndim)), keepdims=True))


def explicit_pads(size: Sequence[int], kernel: Sequence[int], attributes: Attributes) -> list[int]:
    """Return pads in the order of ONNX (beginnings, then ends), auto_pad resolved."""
    rank = len(kernel)
    mode = text(attributes, "auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return ints(attributes.get("pads", [0] * (2 * rank)))
    if mode == "VALID":
        return [0] * (2 * rank)
    stride, dilation = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    first, last = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        small, large = total // 2, total - total // 2
        first.append(small if mode == "SAME_UPPER" else large)
        last.append(large if mode == "SAME_UPPER" else small)
    return first + last


def windows_of(x: Array, kernel: tuple[int, ...], attributes: Attributes, padding: float) -> tuple[Array, tuple[int, ...]]:
    """Return all windows of (n, c, *spatial) as extra last axes, and these axes."""
    rank = len(kernel)
    stride = attributes.get("strides", [1] * rank)
    dilation = attributes.get("dilations", [1] * rank)
    flat = explicit_pads(x.shape[2:], kernel, attributes)
    pads = [(flat[i], flat[i + rank]) for i in range(rank)]
    ends: list[int | None] = [None] * rank
    if attributes.get("ceil_mode", 0):
        for i, n in enumerate(x.shape[2:]):
            span = n + sum(pads[i]) - dilation[i] * (kernel[i] - 1) - 1
            size = -(-span // stride[i]) + 1
            size -= (size - 1) * stride[i] >= n + pads[i][0]
            ends[i] = (size - 1) * stride[i] + 1
            pads[i] = (pads[i][0], max(pads[i][1], (size - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - n - pads[i][0]))
    claim([*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], pads, strict=True))], x)
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=padding)
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    axes = tuple(range(2, 2 + rank))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axes)  # type: ignore[call-overload]
    index = (
        [slice(None)] * 2 + [slice(0, e, s) for e, s in zip(ends, stride, strict=True)] + [slice(None, None, d) for d in dilation]
    )
    return np.asarray(windows)[tuple(index)], tuple(range(2 + rank, 2 + 2 * rank))
