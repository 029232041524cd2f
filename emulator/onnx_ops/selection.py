"""Operators that select or replace elements by index, count along an axis, or mark elements.

The formulas are those of https://onnx.ai/onnx/operators/. Negative indices count from the end.
"""

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
    text,
)


def _checked(indices: Array, size: int) -> Array:
    """Return indices as int64 from 0; refuse those beyond the axis."""
    wide = indices.astype(np.int64)
    wide = np.where(wide < 0, wide + size, wide)
    if wide.size and (wide.min() < 0 or wide.max() >= size):
        raise ValueError(f"an index is outside an axis of {size} elements")
    return np.asarray(wide)


@register("GatherElements")
def _gather_elements(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    data, indices = given(inputs[0]), given(inputs[1])
    axis = int(attributes.get("axis", 0)) % data.ndim
    where: list[Any] = list(np.indices(claim(indices.shape, indices), sparse=True))
    where[axis] = _checked(indices, data.shape[axis])
    return np.asarray(data[tuple(where)])


@register("GatherND")
def _gather_nd(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    data, indices = given(inputs[0]), given(inputs[1]).astype(np.int64)
    batch, depth = int(attributes.get("batch_dims", 0)), indices.shape[-1]
    claim((*indices.shape[:-1], *data.shape[batch + depth :]), data, indices)
    places = tuple(_checked(indices[..., i], data.shape[batch + i]) for i in range(depth))
    lead = tuple(np.arange(n).reshape(-1, *[1] * (indices.ndim - 2 - i)) for i, n in enumerate(data.shape[:batch]))
    return np.asarray(data[lead + places])


_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _replace(data: Array, where: tuple[Array, ...], updates: Array, how: str) -> Array:
    """Return data with updates at their places, or combined with the elements there."""
    result = data.copy()
    if how == "none":
        result[where] = updates
    else:
        _REDUCTIONS[how].at(result, where, updates)
    return result


@register("ScatterElements", "Scatter")
def _scatter_elements(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    data, indices, updates = (given(x) for x in inputs)
    axis = int(attributes.get("axis", 0)) % data.ndim
    where: list[Any] = list(np.indices(claim(indices.shape, indices), sparse=True))
    where[axis] = _checked(indices, data.shape[axis])
    return _replace(data, tuple(where), updates, text(attributes, "reduction", "none"))


@register("ScatterND")
def _scatter_nd(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    data, indices, updates = (given(x) for x in inputs)
    where = tuple(_checked(indices[..., i], data.shape[i]) for i in range(indices.shape[-1]))
    return _replace(data, where, updates, text(attributes, "reduction", "none"))


@register("TensorScatter")
def _tensor_scatter(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """TensorScatter: the update of a key-value cache, at an index for each sequence."""
    cache, update, first = given(inputs[0]), given(inputs[1]), optional(inputs, 2)
    axis, length = int(attributes.get("axis", -2)) % cache.ndim, cache.shape[int(attributes.get("axis", -2))]
    result, circular = cache.copy(), text(attributes, "mode", "linear") == "circular"
    starts = [0] * cache.shape[0] if first is None else ints(first)
    for sequence, start in enumerate(starts):
        places = start + np.arange(update.shape[axis])
        if not circular and (start < 0 or places[-1] >= length):
            raise ValueError(f"positions {start} to {places[-1]} are outside a cache of {length}")
        target = np.moveaxis(result[sequence], axis - 1, 0)
        target[places % length] = np.moveaxis(update[sequence], axis - 1, 0)
    return result


@register("OneHot")
def _one_hot(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    indices, values = given(inputs[0]), given(inputs[2])
    depth, axis = ints(inputs[1])[0], int(attributes.get("axis", -1))
    claim((*indices.shape, depth), indices)
    wide = indices.astype(np.int64)
    hot = np.where(wide < 0, wide + depth, wide)[..., None] == np.arange(depth)
    return np.asarray(np.moveaxis(np.where(hot, values[1], values[0]), -1, axis))


@register("Trilu")
def _trilu(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, k = given(inputs[0]), optional(inputs, 1)
    offset = 0 if k is None else int(k.reshape(()))
    return np.asarray(np.triu(x, offset) if attributes.get("upper", 1) else np.tril(x, offset))


@register("CumSum")
def _cumulative_sum(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, axis = given(inputs[0]), ints(inputs[1])[0]
    if attributes.get("reverse", 0):
        x = np.flip(x, axis)
    total = np.cumsum(x, axis, dtype=x.dtype)
    if attributes.get("exclusive", 0):
        total = np.roll(total, 1, axis)
        first = [slice(None)] * x.ndim
        first[axis] = slice(0, 1)
        total[tuple(first)] = 0
    return np.asarray(np.flip(total, axis) if attributes.get("reverse", 0) else total)


@register("IsNaN")
def _is_nan(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.asarray(np.isnan(given(inputs[0])))


@register("IsInf")
def _is_inf(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    positive, negative = attributes.get("detect_positive", 1), attributes.get("detect_negative", 1)
    return np.asarray((np.isposinf(x) & bool(positive)) | (np.isneginf(x) & bool(negative)))


@register("EyeLike")
def _eye_like(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    from weakcell.emulator.onnx_ops.arithmetic import numpy_type

    x = given(inputs[0])
    dtype = numpy_type(int(attributes["dtype"])) if "dtype" in attributes else x.dtype
    rows, columns = x.shape
    return np.asarray(np.eye(rows, columns, int(attributes.get("k", 0))), dtype)


@register("ReverseSequence")
def _reverse_sequence(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, lengths = given(inputs[0]), ints(inputs[1])
    time, batch = int(attributes.get("time_axis", 0)), int(attributes.get("batch_axis", 1))
    moved = np.moveaxis(x, (batch, time), (0, 1)).copy()
    for row, length in zip(moved, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.asarray(np.moveaxis(moved, (0, 1), (batch, time)), order="C")


# ── boxes ───────────────────────────────────────────────────────────────────────────────────────────


def _overlap(box: Array, others: Array) -> Array:
    """Return intersection over union of one box (y1, x1, y2, x2) with others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1, dtype=np.float32)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = np.prod(box[2:] - box[:2]) + areas - common
    return np.where((areas > 0) & (union > 0), common / np.where(union > 0, union, 1), np.float32(0))


@register("NonMaxSuppression")
def _non_max_suppression(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """NonMaxSuppression: rows (image, class, box), by class and falling score."""
    boxes, scores = given(inputs[0]), given(inputs[1])
    limits = [optional(inputs, i) for i in (2, 3, 4)]
    most = 0 if limits[0] is None else int(limits[0].reshape(()))
    overlap = np.float32(0) if limits[1] is None else np.float32(limits[1].reshape(()))
    least = -math.inf if limits[2] is None else float(limits[2].reshape(()))
    if attributes.get("center_point_box", 0):  # x centre, y centre, width, height
        centre, half = boxes[..., 1::-1], boxes[..., :1:-1] / 2
        corners = np.concatenate([centre - half, centre + half], -1)
    else:
        pairs = boxes.reshape(*boxes.shape[:-1], 2, 2)
        corners = np.concatenate([pairs.min(-2), pairs.max(-2)], -1)
    rows = []
    for image, of_image in enumerate(scores):
        for label, of_class in enumerate(of_image):
            order = np.argsort(-of_class, kind="stable")
            order = order[of_class[order] > least]
            kept: list[int] = []
            while len(order) and len(kept) < most:
                kept.append(int(order[0]))
                rest = order[1:]
                order = rest[_overlap(corners[image, kept[-1]], corners[image, rest]) <= overlap]
            rows += [(image, label, box) for box in kept]
    return np.asarray(rows, np.int64).reshape(-1, 3)
