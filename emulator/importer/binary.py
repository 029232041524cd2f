"""Sign, Where and comparisons of quantized tensors as exact integer thresholds.

A chain of float32 steps with constant operands is monotone in the integer it starts from, rounding included. A binary
search per channel over all reachable integers runs the chain exactly as onnxruntime does, and finds the integer at which
the result changes. If Sign can return exactly 0, the layer is a TernarySign.

A sign of a sign (Larq's binarizer is sign(sign(x) + 0.1)) gives the same bits, inverted bits or a constant in each channel.
It is merged into the threshold that made the first sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from weakcell.emulator.importer.builder import NetworkBuilder, ValueRange
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    NO_PADS,
    Codes,
    Constant,
    Floats,
    FloatValue,
    Node,
    PendingComparison,
    PendingQuantized,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Binarize, Step, TernarySign, Threshold
from weakcell.emulator.ir.values import Encoding, StoredTensor, ValueSpec
from weakcell.memmodels.errors import ModelError

Integers = npt.NDArray[np.int64]
Truth = npt.NDArray[np.bool_]
LOWEST, HIGHEST = -(1 << 31), (1 << 31) - 1
SCALAR: Floats = scalar(1)
ZERO: Floats = scalar(0)

_TESTS: dict[str, Callable[[Floats, Floats], Truth]] = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
_COMPARISONS = {"Greater": ">", "GreaterOrEqual": ">=", "Less": "<", "LessOrEqual": "<="}


# ── nodes ───────────────────────────────────────────────────────────────────────────────────────────


def lower_sign(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower Sign of a quantized or float tensor; None if its input is something else."""
    source, name = builder.symbol(node.input(0)), node.outputs[0]
    if isinstance(source, PendingQuantized) and _searchable(builder, source):
        return _sign(builder, node, source)
    if isinstance(source, Constant | Codes) or len(source.shape) not in INTEGER_RANKS:
        return None  # the sign of integers stays an integer tensor
    real = builder.as_float(node.input(0))
    if real.dtype != "float32":
        return None
    value = builder.integer_name(name)
    layer = Binarize(node.name, (real.value,), value, ZERO, False, False, True)
    builder.add_layer(layer, ValueSpec(value, "codes", real.shape, "int8"), ValueRange(-1, 1))
    return PendingQuantized(value, real.shape, SCALAR)


def lower_comparison(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower Greater, Less and the like with a constant.

    Pending until its two outcomes get their values.
    """
    test, (a, b) = _COMPARISONS[node.op_type], node.inputs[:2]
    if isinstance(builder.symbols[a], Constant):
        a, b, test = b, a, _MIRRORED[test]
    source, pivot = builder.symbol(a), builder.symbols[b]
    if not isinstance(source, PendingQuantized | FloatValue) or not isinstance(pivot, Constant) or pivot.array.dtype != np.float32:
        return None
    if not _keeps_shape(source.shape, pivot):
        return None
    if isinstance(source, FloatValue) and (source.dtype != "float32" or len(source.shape) not in INTEGER_RANKS):
        return None
    constant = per_channel(pivot.array, source.shape)
    if constant is None or (
        constant.ndim and isinstance(source, PendingQuantized) and builder.values[source.value].shape != source.shape
    ):
        return None
    return PendingComparison(a, source, test, constant)


def lower_where(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower Where(comparison, a, b) with two numbers."""
    condition, a, b = (builder.symbols[name] for name in node.inputs)
    if not isinstance(condition, PendingComparison) or condition.levels is not None:
        return None
    if not isinstance(a, Constant) or not isinstance(b, Constant) or a.array.dtype != np.float32:
        return None
    high, low = _one_number(a), _one_number(b)
    if high is None or low is None or not np.isfinite(high) or not np.isfinite(low):
        return None
    return replace(condition, levels=(low, high)) if _keeps_shape(condition.shape, a, b) else None


def _keeps_shape(shape: tuple[int, ...], *constants: Constant) -> bool:
    """Return whether a broadcast with the constants keeps the shape of a tensor."""
    try:
        return np.broadcast_shapes((1, *shape), *(c.shape for c in constants)) == (1, *shape)
    except ValueError:
        return False


def _one_number(constant: Constant) -> float | None:
    array = constant.array
    return float(array.reshape(-1)[0]) if array.size and np.all(array == array.reshape(-1)[0]) else None


def with_level_step(comparison: PendingComparison, step: Step) -> PendingComparison | None:
    """Apply a float step with one constant to both levels.

    None if the tensor is then no longer two-valued.
    """
    if comparison.levels is None or step.constant.ndim:
        return None
    with np.errstate(all="ignore"):
        low, high = step(np.array(comparison.levels, np.float32))
    return replace(comparison, levels=(float(low), float(high))) if np.isfinite(low) and np.isfinite(high) else None


def per_channel(constant: npt.NDArray[np.generic], shape: tuple[int, ...]) -> Floats | None:
    """Return a constant as a scalar, or as one number per channel.

    Args:
        constant: any shape that broadcasts.
        shape: of the tensor that it is combined with, without the batch.

    Returns:
        None if the constant varies in any other way.
    """
    array = constant.astype(np.float32)
    if array.size == 1:
        return array.reshape(())
    rank = len(shape) + 1
    padded = array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim <= rank else array
    if shape and padded.ndim == rank and padded.size == shape[0] and padded.shape[1] == shape[0]:
        return padded.reshape(-1)
    return None


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────


def compare(builder: NetworkBuilder, comparison: PendingComparison, name: str) -> Symbol:
    """Turn a two-valued tensor into bits with exactly the two levels of the file."""
    assert comparison.levels is not None
    low, high = comparison.levels
    flipped = high < low
    source = comparison.symbol
    if isinstance(source, PendingQuantized) and not _searchable(builder, source):
        source = builder.as_float(comparison.source)
        comparison = replace(comparison, symbol=source)
    if isinstance(source, FloatValue):
        value, view = builder.integer_name(name), source.shape
        builder.add_layer(_binarize(comparison, flipped, name, value), _bits(value, source.shape), ValueRange(-1, 1, 2))
    else:
        if source.pool is not None and (comparison.test in ("<", "<=")) != flipped:
            # a maximum of bits is their OR, so it belongs to the rising test, whose bits are the inverted ones
            flipped = not flipped
        value, view = _threshold(builder, source, comparison.test, comparison.pivot, flipped, name)
    up, down = (low, high) if flipped else (high, low)
    return _two_levels(PendingQuantized(value, view, SCALAR), down, up)


def _two_levels(bits: PendingQuantized, down: float, up: float) -> PendingQuantized:
    """Read bits as `up` (bit 1) and `down` (bit 0), both exact in float32."""
    scale, offset = np.float32((up - down) / 2), np.float32(down + (up - down) / 2)
    low, high = np.float32(min(down, up)), np.float32(max(down, up))
    steps = (Step("add", scalar(float(offset))),) if offset != 0 else ()
    if offset + scale != np.float32(up) or offset - scale != np.float32(down):
        # float32 misses a level: stretch both values a little, then clamp them to the levels
        scale = np.float32(scale + np.copysign(max(abs(low), abs(high)) * np.float32(2.0**-20), scale))
        steps = (*steps, Step("max", scalar(float(low))), Step("min", scalar(float(high))))
    if not np.isfinite(scale) or not np.isfinite(offset):
        raise ModelError(f"Importing the tensor {bits.value!r}", f"it is {down} or {up}", "Use levels below 1e38")
    return replace(bits, scale=scalar(float(scale)), steps=steps)


def _bits(name: str, shape: tuple[int, ...]) -> ValueSpec:
    return ValueSpec(name, "bits", shape, "uint64")


def _binarize(comparison: PendingComparison, flipped: bool, name: str, value: str) -> Layer:
    """Return the layer for a comparison of floats.

    `<` and `<=` are the inverted `>=` and `>`; they differ for NaN only.
    """
    assert isinstance(comparison.symbol, FloatValue)
    below = comparison.test in ("<", "<=")
    strict = comparison.test in (">", "<=")
    return Binarize(name, (comparison.symbol.value,), value, comparison.pivot, strict, flipped != below)


def _threshold(
    builder: NetworkBuilder, pending: PendingQuantized, test: str, pivot: Floats, flipped: bool, name: str
) -> tuple[str, tuple[int, ...]]:
    """Add the Threshold of `pending test pivot`. A pending pool follows on the bits."""
    value_range = builder.ranges[pending.value]
    function, rising = _step_function(builder, pending)
    above = rising == (test in (">", ">="))  # per channel: whether the result changes from false to true

    def outcome(q: Integers) -> Truth:
        """Return per channel whether the comparison has changed at the integers q."""
        return np.asarray(_TESTS[test](function(q), pivot) == above)

    first = first_true(outcome, value_range, rising.size)
    inverted = ~above
    never = first > value_range.high
    cuts = np.where(never | (first <= value_range.low), LOWEST, first)
    return _add_threshold(builder, pending, cuts, (inverted != never) != flipped, name)


def integer_thresholds(builder: NetworkBuilder, pending: PendingQuantized, pivots: Floats) -> tuple[Integers, Truth]:
    """Return the integers at which `pending >= pivot` changes, for several pivots.

    Args:
        builder: the network under construction.
        pending: the compared tensor.
        pivots: (C, T).

    Returns:
        The integers (C, T), and the channels in which the comparison becomes false there.
    """
    value_range = builder.ranges[pending.value]
    function, rising = _step_function(builder, pending)
    cuts = []
    for pivot in pivots.T:

        def outcome(q: Integers, pivot: Floats = pivot) -> Truth:
            """Return per channel whether the comparison has changed at the integers q."""
            return np.asarray((function(q) >= pivot) == rising)

        found = first_true(outcome, value_range, rising.size)
        cuts.append(np.where(found <= value_range.low, LOWEST, np.minimum(found, HIGHEST)))
    return np.stack(cuts, axis=1), ~rising


def _add_threshold(
    builder: NetworkBuilder, pending: PendingQuantized, cuts: Integers, inverted: Truth, name: str
) -> tuple[str, tuple[int, ...]]:
    """Add (q >= cuts) != inverted of the codes or bits.

    A sign of a sign changes the threshold of the first sign.
    """
    spec = builder.values[pending.value]
    inputs: tuple[str, ...] = (pending.value,)
    same = spec.kind == "bits" and not np.any(inverted) and bool(np.all((cuts > -1) & (cuts <= 1)))
    if same:
        value = pending.value
    else:
        maker = builder.makers.get(pending.value)
        if isinstance(maker, Threshold | TernarySign):
            cuts, inverted = _fold_sign_of_sign(builder, maker, cuts, inverted)
            inputs = maker.inputs
        value = builder.unique_name(f"{name}.unpooled") if pending.pool is not None else builder.integer_name(name)
        threshold = builder.stored.store(_threshold_tensor(f"{name}.threshold", cuts))
        builder.add_layer(Threshold(name, inputs, value, threshold, inverted), _bits(value, spec.shape), ValueRange(-1, 1, 2))
    if pending.pool is not None:
        value = builder.add_max_pool(value, pending.pool, name)
    return value, pending.shape


def _fold_sign_of_sign(
    builder: NetworkBuilder, maker: Threshold | TernarySign, cuts: Integers, inverted: Truth
) -> tuple[Integers, Truth]:
    """Return (t >= cuts) != inverted as a threshold of the integers behind the signs t.

    `maker` makes t: -1 or 1 (Threshold), or -1, 0 or 1 (TernarySign). Per channel, the outcome is constant or changes at one of
    t's steps.
    """
    if isinstance(maker, Threshold):
        upper = lower = builder.stored.tensors[maker.threshold].values.astype(np.int64)
    else:
        upper = builder.stored.tensors[maker.upper].values.astype(np.int64)
        lower = np.minimum(
            builder.stored.tensors[maker.lower].values.astype(np.int64) + 1, HIGHEST
        )  # the first integer with t >= 0
    always, never = cuts <= -1, cuts > 1
    # if the maker is inverted, t >= 1 is the inverted t' >= 0 of the sign t' before inversion, and t >= 0 the inverted t' >= 1
    at_upper = (cuts == 1) != maker.inverted
    merged = np.where(always | never, LOWEST, np.where(at_upper, upper, lower))
    return merged, np.where(always, inverted, np.where(never, ~inverted, inverted != maker.inverted))


def _threshold_tensor(name: str, cuts: Integers) -> StoredTensor:
    return StoredTensor(name, "threshold", Encoding("signed", 32), cuts.astype(np.int32))


def _sign(builder: NetworkBuilder, node: Node, pending: PendingQuantized) -> PendingQuantized:
    """Add the sign of a quantized tensor.

    A Threshold if 0 cannot occur, else a TernarySign.
    """
    value_range = builder.ranges[pending.value]
    function, rising = _step_function(builder, pending)
    turn = np.where(rising, np.float32(1), np.float32(-1))
    positive = first_true(lambda q: function(q) * turn > 0, value_range, rising.size)
    reached = first_true(lambda q: function(q) * turn >= 0, value_range, rising.size)
    # a zero is reachable if an integer low + k * step lies in [reached, positive)
    first = value_range.low + -(-(reached - value_range.low) // value_range.step) * value_range.step
    if np.any((first < positive) & (first <= value_range.high)):
        return _add_ternary(builder, node, pending, positive, reached, ~rising)
    never = reached > value_range.high
    cuts = np.where(never | (reached <= value_range.low), LOWEST, reached)
    value, view = _add_threshold(builder, pending, cuts, ~rising != never, node.outputs[0])
    return PendingQuantized(value, view, SCALAR)


def _add_ternary(
    builder: NetworkBuilder,
    node: Node,
    pending: PendingQuantized,
    positive: Integers,
    reached: Integers,
    inverted: Truth,
) -> PendingQuantized:
    name = node.outputs[0]
    spec, value_range = builder.values[pending.value], builder.ranges[pending.value]
    copied = spec.dtype == "int8" and (value_range.low, value_range.high) == (-1, 1) and not np.any(inverted)
    if copied and np.all(positive == 1) and np.all(reached == 0):  # the sign of a sign with zeros
        value = pending.value if pending.pool is None else builder.add_max_pool(pending.value, pending.pool, name)
        return PendingQuantized(value, pending.shape, SCALAR)
    upper = np.where(positive <= value_range.low, LOWEST, np.where(positive > value_range.high, HIGHEST, positive))
    lower = np.where(reached <= value_range.low, LOWEST, np.where(reached > value_range.high, HIGHEST, reached - 1))
    value = builder.unique_name(f"{name}.unpooled") if pending.pool is not None else builder.integer_name(name)
    upper_name = builder.stored.store(_threshold_tensor(f"{name}.upper", upper))
    lower_name = builder.stored.store(_threshold_tensor(f"{name}.lower", lower))
    layer = TernarySign(node.name, (pending.value,), value, upper_name, lower_name, inverted)
    builder.add_layer(layer, ValueSpec(value, "codes", spec.shape, "int8"), ValueRange(-1, 1))
    if pending.pool is not None:
        value = builder.add_max_pool(value, pending.pool, name)
    return PendingQuantized(value, pending.shape, SCALAR)


# ── the search ──────────────────────────────────────────────────────────────────────────────────────


def _searchable(builder: NetworkBuilder, pending: PendingQuantized) -> bool:
    """Return whether an integer threshold can replace the chain.

    No pending padding, and every step is finite.

    Padding adds a third value, 0. After an overflow, a chain of float steps need not be monotone.
    """
    value_range = builder.ranges[pending.value]
    with np.errstate(all="ignore"):
        x = (np.array([[value_range.low], [value_range.high]]) - pending.zero_point).astype(np.float32) * pending.scale
        ends = [x]
        for step in pending.steps:
            ends.append(x := step(x))
    return pending.pads == NO_PADS and all(bool(np.all(np.isfinite(end))) for end in ends)


def _step_function(builder: NetworkBuilder, pending: PendingQuantized) -> tuple[Callable[[Integers], Floats], Truth]:
    """Return the float32 function of a code, and the channels in which it rises."""
    channels = builder.values[pending.value].channels
    rising = np.broadcast_to(pending.scale >= 0, (channels,)).copy()
    for step in pending.steps:
        if step.op in ("mul", "div"):
            rising ^= np.broadcast_to(step.constant < 0, (channels,))

    def function(q: Integers) -> Floats:
        """Return the float32 values of the integers q."""
        x: Floats = (q - pending.zero_point).astype(np.float32) * pending.scale
        with np.errstate(all="ignore"):
            for step in pending.steps:
                x = step(x)
        return x

    return function, rising


def first_true(outcome: Callable[[Integers], Truth], value_range: ValueRange, channels: int) -> Integers:
    """Return per channel the smallest reachable integer with a true outcome.

    If there is none, the result is high + 1.

    Args:
        outcome: of integers (C,); false before it is true.
        value_range: the reachable integers.
        channels: C.
    """
    low = np.full(channels, value_range.low, np.int64)
    high = np.full(channels, value_range.high + 1, np.int64)
    while np.any(low < high):
        middle = (low + high) >> 1
        true = outcome(middle)
        active = low < high
        high = np.where(active & true, middle, high)
        low = np.where(active & ~true, middle + 1, low)
    return low
