"""ONNX operators in numpy: what stays float32 in a network, and what the importer folds in constants.

One function per operator, `f(inputs, attributes, opset)`; an input that the node leaves out is `None` here and `ABSENT` in a
`FloatOperator`. Arithmetic is done in the type of the inputs, in the order in which onnxruntime does it where that is known.
Nothing here allocates more than `MAX_ELEMENTS` for a result whose size the data could choose freely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Inputs = Sequence["Array | None"]
Attributes = Mapping[str, Any]
Operator = Callable[[Inputs, Attributes, int], Array]

MAX_ELEMENTS = 1 << 28

ABSENT: Array = np.zeros(0, np.bool_)
"""Stands in `FloatOperator.operands` for an optional input that the node leaves out (compared by identity)."""

OPERATORS: dict[str, Operator] = {}

_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip


def apply(op_type: str, opset: int, attributes: Attributes, inputs: Inputs) -> Array:
    """The output of one operator; `ABSENT` inputs count as left out. KeyError for an operator that is not in the table."""
    function = OPERATORS[op_type]
    with np.errstate(all="ignore"):
        return function([None if x is ABSENT else x for x in inputs], attributes, opset)


def claim(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape`, after making sure that an array of it may be allocated."""
    if any(n < 0 for n in shape) or math.prod(int(n) for n in shape) > MAX_ELEMENTS:
        raise ValueError(f"a result of shape {list(shape)} has more than {MAX_ELEMENTS} elements")
    return tuple(int(n) for n in shape)


def _register(*names: str) -> Callable[[Operator], Operator]:
    def remember(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name] = function
        return function

    return remember


def _given(x: Array | None) -> Array:
    if x is None:
        raise ValueError("an input is missing")
    return x


def _ints(x: Any) -> list[int]:
    return [int(i) for i in np.asarray(x).reshape(-1)]


# ── elementwise ─────────────────────────────────────────────────────────────────────────────────────


def _unary(name: str, function: Callable[..., Any]) -> None:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        x = _given(inputs[0])
        return np.asarray(function(x), x.dtype)

    OPERATORS[name] = run


def _divide(a: Array, b: Array) -> Array:
    """ONNX Div: integers are divided towards zero."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)), a.dtype)


def _binary(name: str, function: Callable[..., Any]) -> None:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        result = _given(inputs[0])
        for x in inputs[1:]:
            right = _given(x)
            claim(np.broadcast_shapes(result.shape, right.shape))
            result = np.asarray(function(result, right))
        return result

    OPERATORS[name] = run


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: np.maximum(x, 0),
    "Round": np.rint,
    "Sigmoid": _sigmoid,
    "Sign": lambda x: np.nan_to_num(np.sign(x), nan=0.0),
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
}
for _name, _function in _UNARY.items():
    _unary(_name, _function)

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Div": _divide,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Or": np.logical_or,
    "Sub": np.subtract,
    "Sum": np.add,
    "Xor": np.logical_xor,
}
for _name, _function in _BINARY.items():
    _binary(_name, _function)


@_register("Identity", "Dropout")
def _identity(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return _given(inputs[0])


@_register("Pow")
def _pow(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    base, exponent = _given(inputs[0]), _given(inputs[1])
    claim(np.broadcast_shapes(base.shape, exponent.shape))
    return np.asarray(np.power(base, exponent), base.dtype)


@_register("LeakyRelu")
def _leaky_relu(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    return np.where(x >= 0, x, x * x.dtype.type(attributes.get("alpha", 0.01)))


@_register("Clip")
def _clip(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    low, high = clip_limits(inputs, attributes)
    if low is not None:
        x = np.maximum(x, low.astype(x.dtype))
    return x if high is None else np.minimum(x, high.astype(x.dtype))


def clip_limits(inputs: Inputs, attributes: Attributes) -> tuple[Array | None, Array | None]:
    """The limits of a Clip: attributes before opset 11, inputs since."""
    given = [*inputs[1:3], None, None][:2]
    for i, key in enumerate(("min", "max")):
        if given[i] is None and key in attributes:
            given[i] = np.asarray(attributes[key], np.float32)
    return given[0], given[1]


@_register("Cast")
def _cast(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    if (to := _TYPES.get(int(attributes["to"]))) is None:
        raise ValueError(f"Cast to ONNX type {attributes['to']}")
    return _given(inputs[0]).astype(to)


@_register("Where")
def _where(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    condition, a, b = (_given(x) for x in inputs)
    claim(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


@_register("Softmax", "LogSoftmax")
def _softmax(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    axis = int(attributes.get("axis", -1 if opset >= 13 else 1))
    if opset < 13:  # everything from `axis` on is one axis
        axis = axis % x.ndim
        flat = x.reshape(*x.shape[:axis], -1)
        return _softmax([flat], {"axis": -1}, 13).reshape(x.shape)
    e = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(e / e.sum(axis, keepdims=True), x.dtype)


def batch_norm_factors(gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> tuple[Array, Array]:
    """BatchNormalization as y = x * factor + offset, in float32 and in the order of onnxruntime (no fused multiply-add)."""
    one, eps = np.float32(1.0), np.float32(epsilon)
    factor = (one / np.sqrt(variance.astype(np.float32) + eps)) * gamma.astype(np.float32)
    return factor, beta.astype(np.float32) - mean.astype(np.float32) * factor


@_register("BatchNormalization")
def _batch_norm(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, gamma, beta, mean, variance = (_given(v) for v in inputs)
    factor, offset = batch_norm_factors(gamma, beta, mean, variance, float(attributes.get("epsilon", 1e-5)))
    shape = (-1,) + (1,) * (x.ndim - 2)
    return np.asarray(x * factor.reshape(shape) + offset.reshape(shape))


@_register("QuantizeLinear")
def _quantize(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    """Half to even of a float32 division, then the zero point, then the limits of the type (NaN gives the lowest)."""
    x, scale = _given(inputs[0]), _given(inputs[1])
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(scale.shape, np.uint8)
    if scale.size > 1:
        axis = int(attributes.get("axis", 1)) % x.ndim
        shape = [1] * x.ndim
        shape[axis] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    low, high = integer_limits(zero.dtype)
    q = np.rint(x.astype(np.float32) / scale) + zero.astype(np.float32)
    return np.asarray(np.nan_to_num(np.clip(q, low, high), nan=low).astype(np.int32).astype(zero.dtype))


def integer_limits(dtype: Any) -> tuple[int, int]:
    """Lowest and highest value of an integer type, ml_dtypes' narrow ones included."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return int(info.min), int(info.max)
    import ml_dtypes

    narrow: Any = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(narrow.min), int(narrow.max)


# ── shapes and data movement ────────────────────────────────────────────────────────────────────────


@_register("Constant")
def _constant(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    for key, dtype in (("value", None), ("value_float", np.float32), ("value_floats", np.float32)):
        if key in attributes:
            return np.asarray(attributes[key], dtype)
    for key in ("value_int", "value_ints"):
        if key in attributes:
            return np.asarray(attributes[key], np.int64)
    raise ValueError("a Constant without a numeric value")


@_register("ConstantOfShape")
def _constant_of_shape(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    value = np.asarray(attributes.get("value", np.float32(0))).reshape(())
    return np.full(claim(_ints(inputs[0])), value, value.dtype)


@_register("Expand")
def _expand(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    return np.broadcast_to(x, claim(np.broadcast_shapes(x.shape, tuple(_ints(inputs[1]))))).copy()


@_register("Range")
def _range(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    start, limit, delta = (_given(x).reshape(())[()] for x in inputs)
    claim([max(0, math.ceil((limit - start) / delta))])
    return np.asarray(np.arange(start, limit, delta, dtype=start.dtype))


@_register("Shape")
def _shape(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    shape = _given(inputs[0]).shape
    return np.asarray(shape[int(attributes.get("start", 0)) : attributes.get("end")], np.int64)


@_register("Size")
def _size(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.asarray(_given(inputs[0]).size, np.int64)


@_register("Reshape")
def _reshape(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    target = _ints(inputs[1]) if len(inputs) > 1 else _ints(attributes["shape"])
    if not attributes.get("allowzero", 0):
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return x.reshape(target)


@_register("Flatten")
def _flatten(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    axis = int(attributes.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


@_register("Transpose")
def _transpose(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.ascontiguousarray(np.transpose(_given(inputs[0]), attributes.get("perm")))


def axes_of(inputs: Inputs, attributes: Attributes, place: int = 1) -> list[int] | None:
    """The axes of Squeeze, Unsqueeze and reductions: an input since opset 13 or 18, an attribute before."""
    if len(inputs) > place and inputs[place] is not None:
        return _ints(inputs[place])
    return [int(i) for i in attributes["axes"]] if "axes" in attributes else None


@_register("Squeeze")
def _squeeze(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    axes = axes_of(inputs, attributes)
    return np.squeeze(_given(inputs[0]), None if axes is None else tuple(axes))


@_register("Unsqueeze")
def _unsqueeze(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.expand_dims(_given(inputs[0]), tuple(axes_of(inputs, attributes) or ()))


@_register("Concat")
def _concat(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.concatenate([_given(x) for x in inputs], int(attributes["axis"]))


@_register("Gather")
def _gather(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    data, indices = _given(inputs[0]), _given(inputs[1])
    axis = int(attributes.get("axis", 0)) % data.ndim
    claim(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])
    return np.take(data, indices.astype(np.int64), axis)


@_register("Slice")
def _slice(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    if opset < 10:
        starts, ends = _ints(attributes["starts"]), _ints(attributes["ends"])
        axes, steps = attributes.get("axes"), None
    else:
        rest = [*inputs[3:], None, None]
        starts, ends, axes, steps = _ints(inputs[1]), _ints(inputs[2]), rest[0], rest[1]
    where = _ints(axes) if axes is not None else list(range(len(starts)))
    by = _ints(steps) if steps is not None else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(where, starts, ends, by, strict=True):
        stop: int | None = end
        if step < 0 and end < -x.shape[axis]:
            stop = None
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


@_register("Pad")
def _pad(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    pads, value = pad_amounts(inputs, attributes, x.ndim)
    if any(n < 0 for pair in pads for n in pair):
        raise ValueError("negative padding")
    claim([n + a + b for n, (a, b) in zip(x.shape, pads, strict=True)])
    mode = attributes.get("mode", "constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode == "constant":
        return np.pad(x, pads, constant_values=value)
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"padding mode {mode}")
    other: Any = mode
    return np.asarray(np.pad(x, pads, mode=other))


def pad_amounts(inputs: Inputs, attributes: Attributes, rank: int) -> tuple[list[tuple[int, int]], float]:
    """(before, after) per axis and the constant of a Pad: attributes before opset 11, inputs since."""
    if len(inputs) < 2:
        flat = _ints(attributes["pads"] if "pads" in attributes else attributes["paddings"])
        value, axes = float(attributes.get("value", 0.0)), list(range(rank))
    else:
        rest = [*inputs[2:], None, None]
        flat, value = _ints(inputs[1]), 0.0 if rest[0] is None else float(rest[0].reshape(()))
        axes = list(range(rank)) if rest[1] is None else [a % rank for a in _ints(rest[1])]
    pads = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pads[axis] = (flat[i], flat[i + len(axes)])
    return pads, value


# ── reductions ──────────────────────────────────────────────────────────────────────────────────────


def _reduction(name: str, function: Callable[..., Any]) -> None:
    def run(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
        x, axes = _given(inputs[0]), axes_of(inputs, attributes)
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return x
        return np.asarray(function(x, axis=tuple(axes) if axes else None, keepdims=bool(attributes.get("keepdims", 1))), x.dtype)

    OPERATORS[name] = run


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
}
for _name, _function in _REDUCTIONS.items():
    _reduction(_name, _function)


@_register("ArgMax")
def _arg_max(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return _arg(_given(inputs[0]), attributes, np.argmax)


@_register("ArgMin")
def _arg_min(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return _arg(_given(inputs[0]), attributes, np.argmin)


def _arg(x: Array, attributes: Attributes, function: Callable[..., Any]) -> Array:
    axis = int(attributes.get("axis", 0)) % x.ndim
    if attributes.get("select_last_index", 0):
        result = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
    else:
        result = function(x, axis=axis)
    return np.asarray(np.expand_dims(result, axis) if attributes.get("keepdims", 1) else result, np.int64)


# ── products and pools ──────────────────────────────────────────────────────────────────────────────


@_register("MatMul")
def _matmul(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    return np.asarray(np.matmul(_given(inputs[0]), _given(inputs[1])))


@_register("Gemm")
def _gemm(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    a, b = _given(inputs[0]), _given(inputs[1])
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    y = (a @ b) * a.dtype.type(attributes.get("alpha", 1.0))
    c = inputs[2] if len(inputs) > 2 else None
    return np.asarray(y if c is None else y + c * a.dtype.type(attributes.get("beta", 1.0)))


@_register("Conv")
def _conv(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x, w = _given(inputs[0]), _given(inputs[1])
    bias = inputs[2] if len(inputs) > 2 else None
    groups = int(attributes.get("group", 1))
    windows = _windows(x, w.shape[2:], attributes, 0.0)[0]
    n, _, *size = windows.shape[: x.ndim]
    columns = windows.reshape(n, groups, -1, *windows.shape[2:])
    kernel = w.reshape(groups, -1, *w.shape[1:])
    spatial = x.ndim - 2
    here = list(range(3, 3 + spatial))
    inside = list(range(3 + spatial, 3 + 2 * spatial))
    y = np.einsum(columns, [0, 1, 2, *here, *inside], kernel, [1, 49, 2, *inside], [0, 1, 49, *here], optimize=True)
    y = y.reshape(n, w.shape[0], *size)
    return np.asarray(y if bias is None else y + bias.reshape(-1, *[1] * spatial), x.dtype)


@_register("MaxPool")
def _max_pool(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    windows, inner = _windows(x, tuple(attributes["kernel_shape"]), attributes, lowest)
    return np.asarray(windows.max(inner), x.dtype)


@_register("AveragePool")
def _average_pool(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    kernel = tuple(attributes["kernel_shape"])
    windows, inner = _windows(x, kernel, attributes, 0.0)
    if attributes.get("count_include_pad", 0) and not attributes.get("ceil_mode", 0):
        return np.asarray(windows.sum(inner) / x.dtype.type(math.prod(kernel)), x.dtype)
    inside = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if attributes.get("count_include_pad", 0):
        pads = list(zip(*np.reshape(explicit_pads(x.shape[2:], kernel, attributes), (2, -1)).tolist(), strict=True))
        inside = np.pad(inside, [(0, 0), (0, 0), *pads], constant_values=1)
        attributes = {**attributes, "pads": [0] * (2 * len(kernel)), "auto_pad": "NOTSET"}
    return np.asarray(windows.sum(inner) / _windows(inside, kernel, attributes, 0.0)[0].sum(inner), x.dtype)


@_register("GlobalAveragePool")
def _global_average(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    return np.asarray(x.mean(tuple(range(2, x.ndim)), keepdims=True), x.dtype)


@_register("GlobalMaxPool")
def _global_max(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
    x = _given(inputs[0])
    return np.asarray(x.max(tuple(range(2, x.ndim)), keepdims=True))


def explicit_pads(size: Sequence[int], kernel: Sequence[int], attributes: Attributes) -> list[int]:
    """Pads as ONNX writes them (all beginnings, then all ends), with auto_pad worked out."""
    rank = len(kernel)
    mode = attributes.get("auto_pad", b"NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode in ("NOTSET", ""):
        return _ints(attributes.get("pads", [0] * (2 * rank)))
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


def _windows(x: Array, kernel: tuple[int, ...], attributes: Attributes, padding: float) -> tuple[Array, tuple[int, ...]]:
    """All windows of (n, c, *spatial) as extra last axes, and the numbers of those axes."""
    rank = len(kernel)
    stride = attributes.get("strides", [1] * rank)
    dilation = attributes.get("dilations", [1] * rank)
    flat = explicit_pads(x.shape[2:], kernel, attributes)
    pads = [(flat[i], flat[i + rank]) for i in range(rank)]
    if attributes.get("ceil_mode", 0):
        for i, n in enumerate(x.shape[2:]):
            span = n + sum(pads[i]) - dilation[i] * (kernel[i] - 1) - 1
            size = -(-span // stride[i]) + 1
            size -= (size - 1) * stride[i] >= n + pads[i][0]
            pads[i] = (pads[i][0], max(pads[i][1], (size - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - n - pads[i][0]))
    claim([*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], pads, strict=True))])
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=padding)
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    axes = tuple(range(2, 2 + rank))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axes)  # type: ignore[call-overload]
    index = [slice(None)] * 2 + [slice(None, None, s) for s in stride] + [slice(None, None, d) for d in dilation]
    return np.asarray(windows)[tuple(index)], tuple(range(2 + rank, 2 + 2 * rank))
