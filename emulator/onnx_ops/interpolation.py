"""Resize and Upsample.

Along each axis, every output is a weighted sum of the inputs around a point; `nearest` takes one of them. Points are
computed in float32 as in onnxruntime: halfway between two inputs, the last bit decides which one is nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.onnx_ops.registry import Array, Attributes, Inputs, claim, given, ints, optional, register, text

Floats = npt.NDArray[np.float32]
_F = np.float32
_SPARE = 16
"""The tables of an axis may take this many times less than a result."""


@dataclass(frozen=True)
class _Axis:
    """One axis: size before and after, scale, and the part that is read (0 … 1: all)."""

    axis: int
    size: int
    wanted: int
    scale: float
    begin: float
    end: float


@register("Upsample")
def _upsample(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    scales = inputs[1] if len(inputs) > 1 else np.asarray(attributes["scales"], np.float32)
    return _resize([inputs[0], scales], attributes, 10)


@dataclass(frozen=True, eq=False)
class Pass:
    """One axis resized.

    Output i is the sum over t of weights[i, t] * input[places[i, t]].

    Without weights, it is the one input named.
    """

    axis: int
    sources: npt.NDArray[np.int64]
    weights: Floats | None
    outside: npt.NDArray[np.bool_]
    """Where the point is outside the input, if such positions have a value of their own; else empty."""


@register("Resize")
def _resize(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = given(inputs[0])
    if opset < 11:
        inputs = [x, None, inputs[1]]
        attributes = {**attributes, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "simple"}
    result = x
    passes = passes_of(x.shape, inputs, attributes)
    for step in passes:
        result = _resized(result, step)
    for step in passes:
        if step.outside.size:
            around = step.outside.reshape(-1, *[1] * (result.ndim - step.axis - 1))
            result = np.where(around, _F(attributes.get("extrapolation_value", 0.0)), result)
    return np.ascontiguousarray(result if x.dtype.kind == "f" else _saturated(result, x.dtype)).astype(x.dtype, copy=False)


def _resized(x: Array, step: Pass) -> Array:
    if step.weights is None:
        return np.take(x, step.sources[:, 0], step.axis)
    weights = step.weights.reshape(*step.weights.shape, *[1] * (x.ndim - step.axis - 1))
    terms = (np.take(x, step.sources[:, tap], step.axis) * weights[:, tap] for tap in range(step.sources.shape[1]))
    return reduce(np.add, terms)


def passes_of(shape: Sequence[int], inputs: Inputs, attributes: Attributes) -> list[Pass]:
    """Return the passes that resize an input of this shape, as opset 11 defines it.

    Args:
        shape: of the input.
        inputs: of the node; the first one is not read.
        attributes: of the node.

    Raises:
        ValueError: scales or sizes make no sense.
    """
    mode = text(attributes, "mode", "nearest")
    where = text(attributes, "coordinate_transformation_mode", "half_pixel")
    axes = _axes(shape, inputs, attributes)
    claim([{a.axis: a.wanted for a in axes}.get(i, n) for i, n in enumerate(shape)], np.broadcast_to(_F(0), shape))
    passes = []
    for axis in axes:
        claim([axis.wanted, _SPARE])  # another axis may be of size 0, and the result with it
        points = _points(axis, where)
        outside = (points < 0) | (points > axis.size - 1) if where == "tf_crop_and_resize" else np.zeros(0, np.bool_)
        if mode == "nearest":
            rounding = text(attributes, "nearest_mode", "round_prefer_floor")
            passes.append(Pass(axis.axis, _nearest(points, axis, rounding)[:, None], None, outside))
        else:
            passes.append(Pass(axis.axis, *_taps(points, axis, mode, attributes), outside))
    return passes


def _axes(shape: Sequence[int], inputs: Inputs, attributes: Attributes) -> list[_Axis]:
    """Return the axes that change, from `scales` or `sizes`."""
    named = [int(a) % len(shape) for a in attributes.get("axes", range(len(shape)))]
    roi, scales, sizes = (part if part is not None and part.size else None for part in (optional(inputs, i) for i in (1, 2, 3)))
    if roi is None or text(attributes, "coordinate_transformation_mode", "") != "tf_crop_and_resize":
        roi = np.array([0.0] * len(named) + [1.0] * len(named), _F)
    if any(shape[a] == 0 for a in named) or (scales is not None and not np.all((scales > 0) & np.isfinite(scales))):
        raise ValueError(f"scales {scales} for an input of shape {list(shape)}")
    if scales is not None:
        factors = [float(f) for f in scales]
        wanted = [int(np.floor(shape[a] * f)) for a, f in zip(named, factors, strict=True)]
    else:
        wanted, factors = _by_size(ints(given(sizes)), [shape[a] for a in named], text(attributes, "keep_aspect_ratio_policy", ""))
    begins, ends = roi[: len(named)], roi[len(named) :]
    found = [_Axis(a, shape[a], *rest) for a, *rest in zip(named, wanted, factors, begins, ends, strict=True)]
    return [a for a in found if a.scale != 1 or a.wanted != a.size or (a.begin, a.end) != (0, 1)]


def _by_size(wanted: list[int], sizes: list[int], policy: str) -> tuple[list[int], list[float]]:
    factors = [float(_F(w) / _F(n)) for w, n in zip(wanted, sizes, strict=True)]
    if policy in ("not_larger", "not_smaller"):
        one = (min if policy == "not_larger" else max)(w / n for w, n in zip(wanted, sizes, strict=True))
        return [int(one * n + 0.5) for n in sizes], [one] * len(sizes)
    return wanted, factors


def _points(axis: _Axis, mode: str) -> Floats:
    """Return the input coordinate of each output position; `mode` is ONNX's name."""
    x, scale, width = np.arange(axis.wanted, dtype=_F), _F(axis.scale), _F(axis.scale * axis.size)
    last = _F(axis.size - 1)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return np.zeros_like(x) if width == 1 else x * last / (width - 1)
    if mode == "tf_crop_and_resize":
        begin, extent = _F(axis.begin), _F(axis.end) - _F(axis.begin)
        return begin * last + (np.full_like(x, extent * last / 2) if width == 1 else x * extent * last / (width - 1))
    if mode == "pytorch_half_pixel" and width <= 1:
        return np.zeros_like(x) if axis.wanted == 1 else (x + _F(0.5)) / scale - _F(0.5)
    if mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        offset = _F(axis.size / 2) * (1 - _F(axis.wanted) / width) if mode == "half_pixel_symmetric" else _F(0)
        return offset + (x + _F(0.5)) / scale - _F(0.5)
    if mode == "tf_half_pixel_for_nn":
        return (x + _F(0.5)) / scale
    raise ValueError(f"a coordinate_transformation_mode {mode!r}")


def _nearest(points: Floats, axis: _Axis, mode: str) -> npt.NDArray[np.int64]:
    """Return the input that each output position takes.

    Beyond an end, the last one there.

    Args:
        points: input coordinates.
        axis: the axis.
        mode: as ONNX names them, or `simple`: what onnxruntime does for opsets up to 10, which do not say.
    """
    rounding: dict[str, Callable[[Floats], Any]] = {
        "round_prefer_floor": lambda p: np.ceil(p - _F(0.5)),
        "round_prefer_ceil": lambda p: np.floor(p + _F(0.5)),
        "floor": np.floor,
        "ceil": np.ceil,
        "simple": np.ceil if axis.scale < 1 else np.floor,
    }
    if mode not in rounding:
        raise ValueError(f"a nearest_mode {mode!r}")
    nearest: npt.NDArray[np.int64] = np.clip(rounding[mode](points).astype(np.int64), 0, axis.size - 1)
    return nearest


def _taps(points: Floats, axis: _Axis, mode: str, attributes: Attributes) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the inputs around each point and their weights.

    Antialiasing widens the kernel by 1 / scale.
    """
    if mode not in ("linear", "cubic"):
        raise ValueError(f"a mode {mode!r}")
    antialias, alone = bool(attributes.get("antialias", 0)), bool(attributes.get("exclude_outside", 0))
    narrow = min(1.0, axis.scale) if antialias else 1.0
    reach = int(np.ceil((1 if mode == "linear" else 2) / narrow))
    claim([axis.wanted, 2 * reach, _SPARE])
    sources = np.floor(points).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(sources - points[:, None].astype(np.float64)) * narrow
    weights = np.maximum(0, 1 - distance) if mode == "linear" else _cubic(distance, float(attributes.get("cubic_coeff_a", -0.75)))
    if alone:
        weights = np.where((sources < 0) | (sources >= axis.size), 0.0, weights)
    if alone or antialias:
        weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(sources, 0, axis.size - 1), weights.astype(_F)


def _cubic(distance: npt.NDArray[np.float64], a: float) -> npt.NDArray[np.float64]:
    """Return Keys' kernel (1981), equation 4."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _saturated(x: Array, dtype: np.dtype[Any]) -> Array:
    """Clamp to the range of an integer type and round towards 0."""
    info = np.iinfo(dtype)
    return np.trunc(np.clip(x, info.min, info.max)) if x.dtype.kind == "f" else x
