"""QONNX's quantizers.

Stored integers behind Quant of weights, codes behind Quant of activations.

Reference: https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops. Quant divides, rounds and clamps like
QuantizeLinear if it rounds half to even around 0. Any other Quant, and Trunc, runs in float32 as written, or becomes a table.
Its result is an integer times the scale, so integer layers follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer import binary, integer_ops, requantize
from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.constant_recipe import WIDEST_WEIGHT
from weakcell.emulator.importer.folding import check_scale, check_weight_scale
from weakcell.emulator.importer.requantize import quantize_to
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    NO_PADS,
    Array,
    Codes,
    Constant,
    FloatValue,
    Node,
    OperatorCall,
    PendingComparison,
    PendingPointwise,
    PendingQuantized,
    PointwiseOperator,
    QuantizedConstant,
    Recipe,
    Symbol,
    scalar,
)
from weakcell.emulator.importer.unsupported import unsupported
from weakcell.emulator.ir.layers import CountThresholds, Quantize
from weakcell.emulator.ir.operators import OperandStep
from weakcell.emulator.ir.values import SIGN1, Encoding, StoredTensor, ValueSpec
from weakcell.emulator.onnx_ops import qonnx_quantizers as operators
from weakcell.memmodels.errors import ModelError

DOMAIN = "qonnx"


# ── constants ───────────────────────────────────────────────────────────────────────────────────────


def fold(node: Node, inputs: list[Constant | None]) -> Constant:
    """Fold a quantizer of constants; a Quant keeps the integers that a memory stores."""
    key = f"{DOMAIN}.{node.op_type}"
    if key not in onnx_ops.OPERATORS:
        raise unsupported(node)
    first, arrays = inputs[0], [None if x is None else x.array for x in inputs]
    origin = first.origin if first is not None and first.origin else node.outputs[0]
    if len(arrays) > 1 and node.op_type != "MultiThreshold" and arrays[1] is not None:
        check_weight_scale(node, arrays[1], divides=True)
        if node.op_type == "Trunc":
            check_scale(node, arrays[1])
    try:
        array = onnx_ops.apply(key, node.opset, node.attributes, arrays)
        quantized = _quantized(node, arrays, array) if node.op_type == "Quant" else None
    except (ValueError, IndexError, TypeError, OverflowError) as e:
        raise ModelError(f"Folding {node}", f"its constant inputs do not fit ({e})", "Export the model again") from None
    return Constant(array, origin, quantized, recipe=_recipe(node, arrays, origin))


def _recipe(node: Node, arrays: list[Array | None], origin: str) -> Recipe | None:
    """Return the result as a recipe of stored integers: (q - zero point) * scale."""
    x, scale, *rest = arrays
    if x is None or scale is None or node.op_type not in ("Quant", "BipolarQuant", "FloatQuant"):
        return None
    times = OperandStep("Mul", 14, {}, (None, scale))
    if node.op_type == "FloatQuant":
        return _float_recipe(node, arrays, origin, times)
    if node.op_type == "BipolarQuant":
        return Recipe(origin, np.where(x >= 0, np.float32(1), np.float32(-1)), SIGN1, (times,))
    zero, bits = rest
    encoding = None if bits is None else _encoding(node, bits)
    if zero is None or encoding is None or encoding.bits > WIDEST_WEIGHT:
        return None
    with np.errstate(all="ignore"):
        integers = operators.codes(arrays, node.attributes)
    return Recipe(origin, integers, encoding, (OperandStep("Sub", 14, {}, (None, zero)), times))


def _float_recipe(node: Node, arrays: list[Array | None], origin: str, times: OperandStep) -> Recipe | None:
    """Return the result of a FloatQuant as codes of sign, exponent and mantissa; None if its format cannot be stored so."""
    exponent_bits, mantissa_bits, bias = (0.0 if a is None else float(a.reshape(-1)[0]) for a in arrays[2:5])
    bits = 1 + exponent_bits + mantissa_bits
    if exponent_bits % 1 or mantissa_bits % 1 or not 2 <= bits <= WIDEST_WEIGHT or exponent_bits < 1:
        return None
    table = operators.minifloat_table(int(exponent_bits), int(mantissa_bits), bias)
    with np.errstate(all="ignore"):
        real = operators.rounded_floats(arrays, node.attributes)
    positive = table[: table.size // 2]
    codes = np.minimum(np.searchsorted(positive, np.abs(real)), positive.size - 1)
    if np.any(positive[codes] != np.abs(real)):
        return None  # the largest value of the file is not one of the format
    codes = np.where(np.signbit(real), codes + positive.size, codes)
    return Recipe(origin, codes, Encoding("unsigned", int(bits)), (OperandStep("weakcell.LookUp", 1, {}, (None, table)), times))


def _encoding(node: Node, bits: Array) -> Encoding:
    """Return how the integers of a Quant are stored."""
    width = int(bits.reshape(-1)[0])
    if operators.is_bipolar(node.attributes, width):
        return SIGN1
    return Encoding("signed" if node.attributes.get("signed", 1) else "unsigned", width)


def _quantized(node: Node, arrays: list[Array | None], array: Array) -> QuantizedConstant | None:
    """Return the integers of a quantized weight.

    None if scale or zero point vary along several axes.
    """
    with np.errstate(all="ignore"):
        integers = operators.codes(arrays, node.attributes)
    _, scale, zero, bits = (np.zeros(0) if a is None else a for a in arrays[:4])
    axes = {axis for p in (scale, zero) for axis in _long_axes(p, array.ndim)}
    if len(axes) > 1 or np.any(zero != np.rint(zero)):
        return None
    axis = axes.pop() if axes else 0
    size = array.shape[axis] if scale.size > 1 or zero.size > 1 else 1
    flat = [np.broadcast_to(p.reshape(-1), (size,)) if size > 1 else p.reshape(()) for p in (scale, zero)]
    encoding = _encoding(node, bits)
    return QuantizedConstant(integers.astype(np.int32), encoding, flat[0].astype(np.float32), flat[1].astype(np.int32), axis)


def _long_axes(parameter: Array, rank: int) -> list[int]:
    return [rank - parameter.ndim + i for i, n in enumerate(parameter.shape) if n > 1]


# ── activations ─────────────────────────────────────────────────────────────────────────────────────


def lower_quant(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Quant of an activation."""
    given = [builder.constant(node, index) for index in range(1, 4)]
    if any(c is None for c in given):
        raise ModelError(f"Importing {node}", "an input is missing", "Export the model again")
    scale, zero, bits = (c.array for c in given if c is not None)
    check_scale(node, scale)
    symbol = builder.symbol(node.input(0))
    if isinstance(symbol, Codes | Constant):
        raise ModelError(f"Importing {node}", "its input is no float tensor", "Export the model again")
    try:
        low, high = operators.code_limits(node.attributes, float(bits.reshape(-1)[0]))
        mode, _ = operators.rounding(node.attributes, "ROUND")
    except ValueError as e:
        raise ModelError(f"Importing {node}", f"it has {e}", "See the QONNX operators") from None
    if (
        len(symbol.shape) not in INTEGER_RANKS
        or not scale.size == zero.size == 1
        or high >= 1 << 16
        or not _is_code(float(zero.reshape(())))
    ):
        return _add_as_written(builder, node)
    if operators.is_bipolar(node.attributes, float(bits.reshape(-1)[0])):
        return _pending_sign(builder, node, symbol, float(scale.reshape(())), float(zero.reshape(())))
    step, point = np.float32(scale.reshape(())), int(zero.reshape(()))
    target = _target(builder, node, low, high, step, point)
    if mode in ("ROUND", "HALF_EVEN") and point == 0:
        return _as_pending(quantize_to(builder, node, symbol, target, ValueRange(low, high), fused=False), target)
    return _quantize_as_written(builder, node, symbol, target, ValueRange(low, high))


def _is_code(zero: float) -> bool:
    """Return whether a float zero point is an integer of a size that codes have."""
    return zero.is_integer() and abs(zero) < 1 << 16


def _target(builder: NetworkBuilder, node: Node, low: int, high: int, scale: Any, zero: int) -> ValueSpec:
    width = 8 if high - low < 256 and low >= -128 and high < 256 and (low >= 0 or high < 128) else 16
    dtype = f"{'u' if low >= 0 else ''}int{width}"
    return ValueSpec(builder.integer_name(node.outputs[0]), "codes", (), dtype, np.asarray(scale, np.float32), zero)


def _as_pending(codes: Codes, target: ValueSpec) -> PendingQuantized:
    return PendingQuantized(codes.value, codes.shape, np.asarray(target.scale), target.zero_point)


def _add_as_written(builder: NetworkBuilder, node: Node) -> FloatValue:
    """Add the operator in float32."""
    real = builder.as_float(node.input(0))
    constants = [builder.constant(node, index) for index in range(1, len(node.inputs))]
    arrays: list[Array] = [onnx_ops.ABSENT if c is None else c.array for c in constants]
    operands: tuple[FloatValue | Array, ...] = (real, *arrays)
    return builder.add_float_operator(
        node.outputs[0],
        OperatorCall(f"{DOMAIN}.{node.op_type}", operands, dict(node.attributes), node.opset),
        real.shape,
        exact=True,
    )


def _quantize_as_written(
    builder: NetworkBuilder, node: Node, symbol: Symbol, target: ValueSpec, value_range: ValueRange
) -> PendingQuantized:
    """Make a table of the operator, or run it in float32 and quantize its result."""
    constants = [builder.constant(node, index) for index in range(1, len(node.inputs))]
    if isinstance(symbol, PendingQuantized) and integer_ops.fits_table(builder, symbol):
        symbol = PendingPointwise(symbol, ())
    if isinstance(symbol, PendingPointwise):
        arrays = tuple(onnx_ops.ABSENT if c is None else c.array for c in constants)
        operator = PointwiseOperator(f"{DOMAIN}.{node.op_type}", node.opset, dict(node.attributes), arrays)
        pointwise = replace(symbol, operators=(*symbol.operators, operator))
        return _as_pending(requantize.quantize_pointwise(builder, node, pointwise, target, value_range), target)
    written = replace(node, outputs=(f"{node.outputs[0]}.float",))
    real = _add_as_written(builder, written)
    layer = Quantize(
        node.name, (real.value,), target.name, float(target.scale), target.zero_point, value_range.low, value_range.high
    )
    return _as_pending(Codes(builder.add_layer(layer, replace(target, shape=real.shape), value_range), real.shape), target)


def _pending_sign(builder: NetworkBuilder, node: Node, symbol: Symbol, scale: float, zero: float) -> Symbol:
    """Return one signed bit: +scale if x / scale >= 0, else -scale.

    With a zero point, the operator runs in float32 as written.
    """
    if (
        zero != 0
        or not isinstance(symbol, PendingQuantized | FloatValue)
        or (isinstance(symbol, PendingQuantized) and symbol.pads != NO_PADS)
    ):
        return _add_as_written(builder, node)
    tiny = scalar(-(scale // 2) * 2.0**-149)  # values that the division rounds to -0 are above it, and -0 is not below 0
    return PendingComparison(node.input(0), symbol, ">=", tiny, (-scale, scale))


def lower_bipolar(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower BipolarQuant: +scale if x >= 0 (also for 0 and -0), else -scale, as bits."""
    scale, symbol = builder.constant(node, 1), builder.symbol(node.input(0))
    if (
        scale is None
        or scale.array.size != 1
        or not isinstance(symbol, PendingQuantized | FloatValue)
        or len(symbol.shape) not in INTEGER_RANKS
    ):
        return _add_as_written(builder, node)
    if isinstance(symbol, PendingQuantized) and symbol.pads != NO_PADS:
        return _add_as_written(builder, node)
    check_scale(node, scale.array)
    high = float(scale.array.reshape(()))
    return PendingComparison(node.input(0), symbol, ">=", scalar(0), (-high, high))


def lower_trunc(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Trunc, which drops low bits: a table where the codes are known."""
    given = [builder.constant(node, index) for index in range(1, len(node.inputs))]
    arrays = [c.array for c in given if c is not None]
    symbol = builder.symbol(node.input(0))
    if len(arrays) not in (4, 5) or any(a.size != 1 for a in arrays) or isinstance(symbol, Codes | Constant):
        return _add_as_written(builder, node)
    scale, zero, bits_in, *rest = (float(a.reshape(())) for a in arrays)
    check_scale(node, arrays[0])
    out_scale, bits = (scale, rest[0]) if len(rest) == 1 else (rest[0], rest[1])
    if zero != 0 or len(symbol.shape) not in INTEGER_RANKS or bits > 15:
        return _add_as_written(builder, node)
    try:  # version 1 states no sign: one more bit holds either
        signed = node.attributes if len(rest) == 2 else {"signed": 1}
        low, high = operators.code_limits(signed, bits if len(rest) == 2 else bits + 1)
        operators.rounding(node.attributes, "FLOOR")
    except ValueError as e:
        raise ModelError(f"Importing {node}", f"it has {e}", "See the QONNX operators") from None
    if len(rest) == 1 and bits_in < bits:
        raise ModelError(f"Importing {node}", f"it widens {bits_in} bits to {bits}", "Export the model again")
    return _quantize_as_written(
        builder, node, symbol, _target(builder, node, low, high, np.float32(out_scale), 0), ValueRange(low, high)
    )


def lower_multi_threshold(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower MultiThreshold, the number of thresholds that are reached.

    One threshold is a sign, several are counted on integers.
    """
    given, symbol = builder.constant(node, 1), builder.symbol(node.input(0))
    if given is None or given.array.ndim != 2 or isinstance(symbol, Codes | Constant):
        raise ModelError(f"Importing {node}", "its thresholds are no matrix, or its input no floats", "Export the model again")
    thresholds = np.sort(given.array.astype(np.float32), axis=1)
    scale, offset = np.float32(node.attributes.get("out_scale", 1.0)), np.float32(node.attributes.get("out_bias", 0.0))
    channels, count = symbol.shape[0], thresholds.shape[1]
    if thresholds.shape[0] not in (1, channels) or not np.all(np.isfinite(thresholds)) or not scale > 0:
        found = f"its thresholds have the shape {list(given.shape)}, its scale is {scale}"
        raise ModelError(f"Importing {node}", found, "One row of finite numbers per channel is needed")
    if len(symbol.shape) not in INTEGER_RANKS or not isinstance(symbol, PendingQuantized | FloatValue):
        return _add_as_written(builder, node)
    if count == 1 and (isinstance(symbol, FloatValue) or symbol.pads == NO_PADS):
        pivot = thresholds[:, 0] if len(thresholds) > 1 else thresholds[0, 0].reshape(())
        if not pivot.ndim or isinstance(symbol, FloatValue) or builder.values[symbol.value].shape == symbol.shape:
            return PendingComparison(node.input(0), symbol, ">=", pivot, (float(offset), float(scale + offset)))
    zero = -float(offset) / float(scale)
    if not _is_code(zero) or count >= 1 << 16:
        return _add_as_written(builder, node)
    target = _target(builder, node, 0, count, scale, int(zero))
    if (
        isinstance(symbol, PendingQuantized)
        and symbol.pads == NO_PADS
        and symbol.pool is None
        and builder.values[symbol.value].kind == "codes"
    ):
        return _add_count_thresholds(builder, node, builder.materialize_view(symbol, node.input(0)), thresholds, target)
    return _quantize_as_written(builder, node, symbol, target, ValueRange(0, count))


def _add_count_thresholds(
    builder: NetworkBuilder, node: Node, pending: PendingQuantized, thresholds: Array, target: ValueSpec
) -> PendingQuantized:
    spec = builder.values[pending.value]
    table = np.broadcast_to(thresholds, (spec.channels, thresholds.shape[1]))
    cuts, falling = binary.integer_thresholds(builder, pending, table)
    stored = StoredTensor(f"{node.outputs[0]}.thresholds", "threshold", Encoding("signed", 32), cuts.astype(np.int32))
    layer = CountThresholds(node.name, (pending.value,), target.name, builder.stored.store(stored), falling)
    value = builder.add_layer(layer, replace(target, shape=spec.shape), ValueRange(0, thresholds.shape[1]))
    return _as_pending(Codes(value, pending.shape), target)


LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], Symbol]] = {
    "BipolarQuant": lower_bipolar,
    "FloatQuant": _add_as_written,
    "MultiThreshold": lower_multi_threshold,
    "Quant": lower_quant,
    "Trunc": lower_trunc,
}
