"""Operators that create, move and select elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from weakcell.emulator.onnx_ops.registry import (
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


@register("Constant")
def _constant(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    for key, dtype in (("value", None), ("value_float", np.float32), ("value_floats", np.float32)):
        if key in attributes:
            return np.asarray(attributes[key], dtype)
    for key in ("value_int", "value_ints"):
        if key in attributes:
            return np.asarray(attributes[key], np.int64)
    raise ValueError("a Constant without a numeric value")


@register("ConstantOfShape")
def _constant_of_shape(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    value = np.asarray(attributes.get("value", np.float32(0))).reshape(())
    return np.full(claim(ints(inputs[0])), value, value.dtype)


@register("Expand")
def _expand(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    return np.broadcast_to(x, claim(np.broadcast_shapes(x.shape, tuple(ints(inputs[1]))), x)).copy()


@register("Range")
def _range(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    start, limit, delta = (given(x).reshape(()).item() for x in inputs)
    claim([max(0, math.ceil((limit - start) / delta))])
    return np.arange(start, limit, delta, dtype=given(inputs[0]).dtype)


@register("Shape")
def _shape(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    shape = given(inputs[0]).shape
    return np.asarray(shape[int(attributes.get("start", 0)) : attributes.get("end")], np.int64)


@register("Size")
def _size(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.asarray(given(inputs[0]).size, np.int64)


@register("Reshape")
def _reshape(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    target = ints(inputs[1]) if len(inputs) > 1 else ints(attributes["shape"])
    if not attributes.get("allowzero", 0):
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return x.reshape(target)


@register("Flatten")
def _flatten(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    axis = int(attributes.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@register("Transpose")
def _transpose(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.asarray(np.transpose(given(inputs[0]), attributes.get("perm")), order="C")


def axes_of(inputs: Inputs, attributes: Attributes, index: int = 1) -> list[int] | None:
    """Return the axes of Squeeze, Unsqueeze or a reduction.

    An input since opset 13 or 18, an attribute before.
    """
    if len(inputs) > index and inputs[index] is not None:
        return ints(inputs[index])
    return [int(i) for i in attributes["axes"]] if "axes" in attributes else None


@register("Squeeze")
def _squeeze(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    axes = axes_of(inputs, attributes)
    return np.squeeze(given(inputs[0]), None if axes is None else tuple(axes))


@register("Unsqueeze")
def _unsqueeze(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.expand_dims(given(inputs[0]), tuple(axes_of(inputs, attributes) or ()))


@register("Concat")
def _concat(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.concatenate([given(x) for x in inputs], int(attributes["axis"]))


@register("Gather")
def _gather(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    data, indices = given(inputs[0]), given(inputs[1])
    axis = int(attributes.get("axis", 0)) % data.ndim
    claim(data.shape[:axis] + indices.shape + data.shape[axis + 1 :], data, indices)
    return np.take(data, indices.astype(np.int64), axis)


@register("Slice")
def _slice(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    if opset < 10:
        starts, ends = ints(attributes["starts"]), ints(attributes["ends"])
        axes, steps = attributes.get("axes"), None
    else:
        options = [*inputs[3:], None, None]
        starts, ends, axes, steps = ints(inputs[1]), ints(inputs[2]), options[0], options[1]
    where = ints(axes) if axes is not None else list(range(len(starts)))
    by = ints(steps) if steps is not None else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(where, starts, ends, by, strict=True):
        stop: int | None = end
        if step < 0 and end < -x.shape[axis]:
            stop = None
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


@register("Pad")
def _pad(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    pads, value = pad_amounts(inputs, attributes, x.ndim)
    if any(n < 0 for pair in pads for n in pair):
        raise ValueError("negative padding")
    claim([n + a + b for n, (a, b) in zip(x.shape, pads, strict=True)], x)
    mode = text(attributes, "mode", "constant")
    if mode == "constant":
        return np.pad(x, pads, constant_values=value)
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"padding mode {mode}")
    other: Any = mode
    return np.asarray(np.pad(x, pads, mode=other))


def pad_amounts(inputs: Inputs, attributes: Attributes, rank: int) -> tuple[list[tuple[int, int]], float]:
    """Return (before, after) per axis and the constant of a Pad.

    Attributes before opset 11, inputs since.
    """
    if len(inputs) < 2:
        flat = ints(attributes["pads"] if "pads" in attributes else attributes["paddings"])
        value, axes = float(attributes.get("value", 0.0)), list(range(rank))
    else:
        options = [*inputs[2:], None, None]
        flat, value = ints(inputs[1]), 0.0 if options[0] is None else float(options[0].reshape(()))
        axes = list(range(rank)) if options[1] is None else [a % rank for a in ints(options[1])]
    pads = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pads[axis] = (flat[i], flat[i + len(axes)])
    return pads, value


@register_several("Split")
def _split(inputs: Inputs, attributes: Attributes, opset: int, outputs: int) -> tuple[Array, ...]:
    """Split (https://onnx.ai/onnx/operators/onnx__Split.html).

    Sizes are an attribute, since opset 13 an input.
    """
    x = given(inputs[0])
    axis = int(attributes.get("axis", 0)) % x.ndim
    sizes = split_sizes(inputs, attributes, x.shape[axis], outputs)
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def split_sizes(inputs: Inputs, attributes: Attributes, size: int, outputs: int) -> list[int]:
    """Return the number of elements that each output of a Split gets along its axis."""
    wanted = optional(inputs, 1)
    if wanted is None and "split" in attributes:
        wanted = np.asarray(attributes["split"])
    if wanted is None:
        count = int(attributes.get("num_outputs", outputs))
        if not 1 <= count <= max(size, 1):
            raise ValueError(f"{count} parts of {size} elements")
        step = -(-size // count)
        return [max(0, min(step, size - i * step)) for i in range(count)]
    sizes = ints(wanted)
    if sum(sizes) != size or min(sizes) < 0:
        raise ValueError(f"the parts {sizes} do not add up to {size}")
    return sizes


@register("DepthToSpace")
def _depth_to_space(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, b = given(inputs[0]), int(attributes["blocksize"])
    n, c, h, w = x.shape
    if text(attributes, "mode", "DCR") == "DCR":
        parts = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // (b * b), h * b, w * b)


@register("SpaceToDepth")
def _space_to_depth(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, b = given(inputs[0]), int(attributes["blocksize"])
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if text(attributes, "mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return parts.transpose(order).reshape(n, c * b * b, h // b, w // b)


@register("Tile")
def _tile(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, repeats = given(inputs[0]), ints(inputs[1])
    claim([n * r for n, r in zip(x.shape, repeats, strict=True)], x)
    return np.tile(x, repeats)
