"""Conv, Gemm and MatMul with stored weights.

Convolution layers with an int32 accumulator.

A weight is stored if it is dequantized integers, or ±1 times a scale per output channel. Everything else stays float32.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.constant_recipe import ImportedTensor
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.symbols import (
    NO_PADS,
    Array,
    Constant,
    Floats,
    FloatValue,
    Node,
    OperatorCall,
    PendingQuantized,
    Symbol,
    scalar,
)
from weakcell.emulator.importer.tensor_store import IncompatibleWeightOrder
from weakcell.emulator.importer.windows import read_conv_window
from weakcell.emulator.ir.layers import Convolution, Requantize, Step
from weakcell.emulator.ir.values import SIGN1, Encoding, StoredTensor, ValueSpec, Window
from weakcell.memmodels.errors import ModelError

LIMIT = (1 << 31) - 1
INT32_SUM = "weakcell.int32_sum"
"""Attribute that marks the Conv, MatMul or Gemm of a QLinear operator: its int32 sum wraps, a float sum never does."""


def lower_linear(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower a Conv, Gemm or MatMul.

    It stays float32 if another layer has stored its weights in an order that it cannot read.
    """
    try:
        return _lower_stored(builder, node)
    except IncompatibleWeightOrder:
        plain = {key: value for key, value in node.attributes.items() if key != INT32_SUM}
        return lower_float(builder, replace(node, attributes=plain))


def _lower_stored(builder: NetworkBuilder, node: Node) -> Symbol:
    wraps = INT32_SUM in node.attributes
    if wraps:
        node = replace(node, attributes={key: value for key, value in node.attributes.items() if key != INT32_SUM})
    weight = builder.symbols.get(node.input(1))
    if not isinstance(weight, Constant) or not _is_plain(node):
        return lower_float(builder, node)
    if wraps:
        _check_scales(node, weight)
    stored = stored_weight(node, weight)
    if stored is None:
        return lower_float(builder, node)
    source = builder.symbol(node.input(0))
    if isinstance(source, PendingQuantized) and not stored.block:
        pending = as_summable(builder, source, node.input(0), node.op_type == "Conv")
        if (
            pending is not None
            and (node.op_type == "Conv" or len(pending.shape) == 1)
            and fits_int32(builder, node, pending, stored, wraps)
        ):
            return add_integer_sum(builder, node, pending, stored, wraps)
    if wraps and isinstance(source, PendingQuantized) and _largest_sum(builder, node, source, stored) >= LIMIT:
        found = "its int32 sums can wrap, and a sum of these shapes or scales is computed in float32, which does not"
        raise ModelError(f"Importing {node}", found, "Use narrower weights or activations, or split the layer")
    return _add_float_sum(builder, node, stored)


def fits_int32(builder: NetworkBuilder, node: Node, pending: PendingQuantized, stored: StoredTensor, wraps: bool) -> bool:
    """Return whether int32 holds every sum.

    Otherwise the sum stays float32, as the file writes it.

    Sums of 16-bit codes seldom fit.

    Args:
        builder: the network under construction.
        node: the operator.
        pending: its input.
        stored: its weight.
        wraps: whether a sum beyond int32 is to wrap; then only the factors have to fit.
    """
    factors = _factors(builder, pending, stored)
    narrow = all(low >= -(1 << 15) and high < 1 << 15 for low, high in factors)
    return narrow and (wraps or _largest_sum(builder, node, pending, stored) < LIMIT)


def _factors(builder: NetworkBuilder, pending: PendingQuantized, stored: StoredTensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return lowest and highest input and weight, less their zero points."""
    source, zero, encoding = builder.ranges[pending.value], stored.zero_point, stored.encoding
    inputs = (source.low - pending.zero_point, source.high - pending.zero_point)
    return inputs, (encoding.low - int(zero.max()), encoding.high - int(zero.min()))


def _largest_sum(builder: NetworkBuilder, node: Node, pending: PendingQuantized, stored: StoredTensor) -> int:
    """Return the largest magnitude that a sum with bias can have for these types."""
    bias = builder.symbols.get(node.input(2))
    quantized = bias.quantized if isinstance(bias, Constant) else None
    offset = 0 if quantized is None or not quantized.codes.size else int(np.abs(quantized.codes.astype(np.int64)).max())
    largest = math.prod(max(abs(low), abs(high)) for low, high in _factors(builder, pending, stored))
    return math.prod(stored.shape[1:]) * largest + offset


def _is_plain(node: Node) -> bool:
    """Return whether a Gemm has no scaling and no transposed input."""
    given = node.attributes
    return node.op_type != "Gemm" or (
        float(given.get("alpha", 1.0)) == 1.0 and float(given.get("beta", 1.0)) == 1.0 and not given.get("transA", 0)
    )


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────


def stored_weight(node: Node, constant: Constant) -> ImportedTensor | None:
    """Return the weight as a memory stores it, (O, C/groups, kh, kw) or (O, K).

    Returns:
        None if a sum of stored integers cannot read the weight.
    """
    rank, axis = len(constant.shape), _output_axis(node, constant)
    if (node.op_type == "Conv" and rank not in (3, 4)) or (node.op_type != "Conv" and rank != 2):
        return None
    stored = None
    if constant.quantized is not None:
        stored = _from_codes(node, constant, axis)
    elif constant.array.dtype.kind == "f" and (constant.recipe is None or constant.recipe.encoding == SIGN1):
        stored = _from_signs(node, constant, np.moveaxis(constant.array, axis, 0))
    if stored is None:
        return None
    codes = stored.codes
    if rank == 3:  # the kernel of a 1-D convolution is one row of a 2-D kernel
        outputs, channels, taps = codes.shape
        codes = codes.reshape(outputs, channels, 1, taps)
    return ImportedTensor(
        stored.name, stored.role, stored.encoding, codes, stored.scale, stored.zero_point, stored.block, constant.recipe, axis
    )


def _output_axis(node: Node, constant: Constant) -> int:
    """Return the axis of a weight that counts its outputs."""
    last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.attributes.get("transB", 0))
    return max(len(constant.shape) - 1, 0) if last else 0


def _check_scales(node: Node, constant: Constant) -> None:
    """Refuse a QLinear weight whose scales are neither one for all nor one per output."""
    q, axis = constant.quantized, _output_axis(node, constant)
    if q is not None and q.scale.ndim and (q.block or q.axis != axis):
        found = f"the weight {constant.origin!r} has one scale per element of axis {q.axis}, and its sum is one of integers"
        raise ModelError(f"Importing {node}", found, f"Use one scale, or one per output channel (axis {axis})")


def _from_codes(node: Node, constant: Constant, axis: int) -> StoredTensor | None:
    q = constant.quantized
    assert q is not None
    if q.block:
        return _from_blocks(node, constant, axis)
    if q.scale.ndim and q.axis != axis:
        if constant.recipe is not None:
            return None
        found = f"the weight {constant.origin!r} has one scale per element of axis {q.axis}"
        raise ModelError(f"Importing {node}", found, f"Use one scale, or one per output channel (axis {axis})")
    codes = np.ascontiguousarray(np.moveaxis(q.codes, axis, 0))
    if codes.size and np.all(np.abs(codes) == 1) and not np.any(q.zero_point):
        return StoredTensor(constant.origin, "weight", SIGN1, codes, q.scale)
    return StoredTensor(constant.origin, "weight", q.encoding, codes, q.scale, q.zero_point)


def _from_blocks(node: Node, constant: Constant, axis: int) -> StoredTensor | None:
    """Return a matrix of codes (O, K) with one scale for every `block` of its inputs."""
    q = constant.quantized
    assert q is not None
    if q.codes.ndim != 2 or q.axis == axis:
        if constant.recipe is not None:
            return None
        found = f"the weight {constant.origin!r} has blocks along axis {q.axis} of {q.codes.ndim}"
        raise ModelError(f"Importing {node}", found, "Use blocks along the inputs of a matrix product")
    codes = np.ascontiguousarray(np.moveaxis(q.codes, axis, 0))
    scale, zero = np.moveaxis(q.scale, axis, 0), np.moveaxis(q.zero_point, axis, 0)
    return StoredTensor(constant.origin, "weight", q.encoding, codes, scale, zero, q.block)


def _from_signs(node: Node, constant: Constant, real: Array) -> StoredTensor | None:
    """Return a weight of ±1 times one scale per output channel; None for others."""
    magnitude = np.abs(real).reshape(real.shape[0], -1)
    if constant.signed and magnitude.size and np.any(magnitude == 0):
        found = f"{int((magnitude == 0).sum())} weights of {constant.origin!r} are exactly 0, and Sign(0) is 0, not ±1"
        raise ModelError(f"Importing {node}", found, "Binarize with Where(W >= 0, 1, -1), or keep latent weights away from 0")
    if magnitude.size == 0 or not np.all(np.isfinite(magnitude)):
        return None
    scale = magnitude[:, 0]  # 0 if a batch norm with gamma 0 was folded into the weight; signs do not matter then
    if np.any(magnitude != scale[:, None]) or not np.any(scale):
        return None
    if np.all(scale == scale[0]):
        scale = scale[0].reshape(())
    elif magnitude.shape[1] == 1:  # one weight per channel: any float weights look like this
        return None
    signs = np.ascontiguousarray(np.where(real >= 0, 1, -1).astype(np.int32))
    return StoredTensor(constant.origin, "weight", SIGN1, signs, np.asarray(scale, np.float32))


# ── integer sums ────────────────────────────────────────────────────────────────────────────────────


def as_summable(builder: NetworkBuilder, pending: PendingQuantized, tensor: str, padded: bool) -> PendingQuantized | None:
    """Return the tensor as codes that a Convolution can read; None if it cannot.

    A Convolution reads one scale, with nothing pending but zero padding.

    Args:
        builder: the network under construction.
        pending: the tensor.
        tensor: its ONNX name.
        padded: whether zero padding may be pending.
    """
    if pending.scale.ndim and np.all(pending.scale == pending.scale[0]):
        pending = replace(pending, scale=pending.scale[0].reshape(()))
    if pending.scale.ndim or (pending.pads != NO_PADS and not padded) or pending.pool is not None:
        return None  # a pool is pending where values fall as codes rise: the maximum of the codes is not that of the values
    if pending.steps:
        clamped = _clamp_codes(builder, pending, tensor)
        if clamped is None:
            return None
        pending = clamped
    return pending


def _clamp_codes(builder: NetworkBuilder, pending: PendingQuantized, tensor: str) -> PendingQuantized | None:
    """Carry out scalar limits on the codes; None if a limit is no code."""
    spec, value_range = builder.values[pending.value], builder.ranges[pending.value]
    low, high = value_range.low, value_range.high
    if spec.kind != "codes" or pending.scale <= 0:
        return None
    for step in pending.steps:
        if step.op not in ("max", "min") or step.constant.ndim:
            return None
        code = int(np.rint(step.constant / pending.scale)) + pending.zero_point
        if np.float32(code - pending.zero_point) * pending.scale != step.constant:
            return None
        low, high = (max(low, code), max(high, code)) if step.op == "max" else (min(low, code), min(high, code))
    type_limits = np.iinfo(spec.dtype)
    if low < type_limits.min or high > type_limits.max:
        return None  # for example, a limit below 0 of unsigned codes
    name = builder.integer_name(tensor)
    layer = Requantize(tensor, (pending.value,), name, scalar(1), pending.zero_point, low, high)
    builder.add_layer(layer, replace(spec, name=name, scale=pending.scale), ValueRange(low, high))
    return replace(pending, value=name, steps=())


def add_integer_sum(
    builder: NetworkBuilder, node: Node, pending: PendingQuantized, stored: ImportedTensor, wraps: bool = False
) -> PendingQuantized:
    """Add a Convolution of codes or bits.

    Args:
        builder: the network under construction.
        node: the operator.
        pending: its input.
        stored: its weight.
        wraps: whether a sum beyond int32 wraps; otherwise it is refused.

    Returns:
        The accumulator as a pending tensor.
    """
    spec = builder.values[pending.value]
    if spec.zero_point != pending.zero_point:
        raise ModelError(f"Importing {node}", "its input is read with another zero point than it was written", "Export again")
    groups = int(node.attributes.get("group", 1))
    if node.op_type == "Conv":
        window = read_conv_window(node, pending.shape, stored.shape, groups)
        window = replace(window, pads=_add_pads(window.pads, pending.pads))
    else:
        window, stored = _as_convolution(node, pending, spec, stored)
    scale: Floats = np.asarray(pending.scale * stored.scale, np.float32)
    weight = builder.stored.store_weight(stored, spec, window, groups)
    bias, later = _bias(builder, node, scale, stored.shape[0])
    value_range = accumulator_range(builder, node, pending, stored, bias, window)
    beyond = max(-value_range.low, value_range.high) >= LIMIT
    if beyond and not wraps:
        terms = math.prod(stored.shape[1:])
        found = f"its sums of {terms} products can reach {max(-value_range.low, value_range.high)}, beyond int32"
        raise ModelError(f"Importing {node}", found, "Use narrower weights or activations, or split the layer")
    if beyond:
        value_range = ValueRange(-LIMIT - 1, LIMIT)
    name = builder.unique_name(f"{node.outputs[0]}.acc")
    layer = Convolution(
        node.name, (pending.value,), name, weight, builder.stored.store(bias) if bias else None, window, groups, beyond
    )
    channels = stored.shape[0]
    shape = (channels,) if node.op_type != "Conv" else window.output_shape(channels, spec.shape)
    builder.add_layer(layer, ValueSpec(name, "codes", shape, "int32", scale), value_range)
    return PendingQuantized(name, shape, scale, 0, later)


def _add_pads(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, int, int, int]:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


def _as_convolution(
    node: Node, pending: PendingQuantized, spec: ValueSpec, stored: ImportedTensor
) -> tuple[Window, ImportedTensor]:
    """Return a matrix product as a convolution whose kernel is the whole image."""
    out, inner = stored.shape
    if inner != math.prod(pending.shape):
        found = f"the weight has {inner} inputs and the tensor {math.prod(pending.shape)} elements"
        raise ModelError(f"Importing {node}", found, "Export the model again")
    kernel = spec.height_width
    return Window(kernel), replace(stored, codes=stored.codes.reshape(out, spec.channels, *kernel))


def _bias(builder: NetworkBuilder, node: Node, scale: Floats, channels: int) -> tuple[StoredTensor | None, tuple[Step, ...]]:
    """Return the bias: stored int32 if it has the accumulator's scale, else a step."""
    given = builder.constant(node, 2) if node.op_type != "MatMul" else None
    if given is None:
        return None, ()
    if given.array.size not in (1, channels):
        found = f"the bias has shape {list(given.shape)} and the output {channels} channels"
        raise ModelError(f"Importing {node}", found, "One bias per channel is needed; export the model again")
    if (stored := integer_bias(given, scale, channels)) is not None:
        return stored, ()
    if not np.any(given.array):
        return None, ()
    constant = np.asarray(given.array, np.float32).reshape(-1)
    return None, (Step("add", constant if constant.size > 1 else constant.reshape(())),)


def integer_bias(given: Constant, scale: Floats, channels: int) -> StoredTensor | None:
    """Return an int32 bias that has the scale of the accumulator.

    None for any other bias.
    """
    q = given.quantized
    if q is None or q.encoding.bits != 32 or q.scale.size not in (1, channels) or q.codes.size not in (1, channels):
        return None
    if np.any(np.broadcast_to(q.scale, (channels,)) != np.broadcast_to(scale, (channels,))):
        return None
    values = np.ascontiguousarray(np.broadcast_to(q.codes.reshape(-1), (channels,)))
    return StoredTensor(given.origin, "bias", Encoding("signed", 32), values, q.scale)


def accumulator_range(
    builder: NetworkBuilder, node: Node, pending: PendingQuantized, stored: StoredTensor, bias: StoredTensor | None, window: Window
) -> ValueRange:
    """Return every sum that weights of this encoding can give, in exact arithmetic.

    Args:
        builder: the network under construction.
        node: the operator.
        pending: its input.
        stored: its weight.
        bias: its stored bias, if any.
        window: its window, which may read padding.
    """
    xs, ws = _factors(builder, pending, stored)
    terms = math.prod(stored.shape[1:])
    if min(xs) < -(1 << 15) or max(xs) >= 1 << 15 or stored.encoding.low < -(1 << 15) or stored.encoding.high >= 1 << 15:
        inputs = f"{builder.values[pending.value].dtype} around {pending.zero_point}"
        found = f"its factors are {inputs} and {stored.encoding}, wider than int16"
        raise ModelError(f"Importing {node}", found, "Use 8-bit weights and activations, or symmetric int16")
    products = [x * w for x in xs for w in ws]
    padded = window.pads != NO_PADS
    if padded:
        products.append(0)
    low, high = terms * min(products), terms * max(products)
    odd = builder.values[pending.value].kind == "bits" and stored.encoding == SIGN1 and not padded and bias is None
    if bias is not None:
        low, high = low + int(bias.values.min()), high + int(bias.values.max())
    return ValueRange(low, high, 2 if odd else 1)


# ── float sums ──────────────────────────────────────────────────────────────────────────────────────


def _add_float_sum(builder: NetworkBuilder, node: Node, stored: ImportedTensor) -> Symbol:
    """Add a Convolution of floats with stored weights.

    Its bias follows as a float Add.
    """
    source = builder.as_float(node.input(0))
    if 0 in source.shape:
        found = f"its input has the shape {list(source.shape)} for one image, which holds nothing"
        raise ModelError(f"Importing {node}", found, "Check the shapes of the constants in front of it")
    groups = int(node.attributes.get("group", 1))
    shape: tuple[int, ...]
    if node.op_type == "Conv":
        window = read_conv_window(node, source.shape, stored.shape, groups)
        shape = window.output_shape(stored.shape[0], source.shape)
    elif len(source.shape) == 1:
        out, inner = stored.shape
        if inner != source.shape[0]:
            raise ModelError(f"Importing {node}", f"the weight has {inner} inputs, the tensor {source.shape[0]}", "Export again")
        window, shape = Window((1, 1)), (out,)
        stored = replace(stored, codes=stored.codes.reshape(out, inner, 1, 1))
    elif node.op_type == "MatMul":
        return _add_float_sum_of_rows(builder, node, source, stored)
    else:
        return lower_float(builder, node)
    given = builder.constant(node, 2) if node.op_type != "MatMul" else None
    bare = given is None or not np.any(given.array)
    name = builder.unique_name(node.outputs[0] if bare else f"{node.outputs[0]}.sum")
    weight = builder.stored.store_weight(stored, builder.values[source.value], window, groups)
    layer = Convolution(node.name, (source.value,), name, weight, None, window, groups)
    builder.add_layer(layer, ValueSpec(name, "float", shape))
    if bare or given is None:
        return FloatValue(name, shape)
    constant = given.array.astype(np.float32).reshape(-1, *[1] * (len(shape) - 1))
    return builder.add_float_operator(node.outputs[0], OperatorCall("Add", (FloatValue(name, shape), constant)), shape, exact=True)


def _add_float_sum_of_rows(builder: NetworkBuilder, node: Node, source: FloatValue, stored: ImportedTensor) -> Symbol:
    """Add a matrix product on (…, K).

    Its rows become the pixels of an image with K channels.
    """
    (out, inner), (*rows, last) = stored.shape, source.shape
    if inner != last:
        raise ModelError(f"Importing {node}", f"the weight has {inner} inputs, the tensor {last}", "Export again")
    name, count, perm = node.outputs[0], math.prod(rows), {"perm": [0, 2, 1]}
    flat = builder.reshape_float(source, (count, inner), f"{name}.rows")
    turned = builder.add_float_operator(f"{name}.rows", OperatorCall("Transpose", (flat,), perm), (inner, count))
    image = builder.reshape_float(turned, (inner, count, 1), f"{name}.image")
    sum_name = builder.unique_name(f"{name}.sum")
    stored = replace(stored, codes=stored.codes.reshape(out, inner, 1, 1))
    weight = builder.stored.store_weight(stored, builder.values[image.value], Window((1, 1)), 1)
    layer = Convolution(node.name, (image.value,), sum_name, weight, None, Window((1, 1)))
    builder.add_layer(layer, ValueSpec(sum_name, "float", (out, count, 1)))
    columns = builder.reshape_float(FloatValue(sum_name, (out, count, 1)), (out, count), f"{name}.columns")
    rowwise = builder.add_float_operator(f"{name}.back", OperatorCall("Transpose", (columns,), perm), (count, out))
    return builder.reshape_float(rowwise, (*rows, out), name)
