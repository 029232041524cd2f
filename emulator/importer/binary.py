"""Sign, Where and comparisons on an integer grid become integer thresholds, found so that no input can tell the difference.

A chain of float32 steps with constant operands is monotone in the integer it starts from, rounding included. So for each
channel a binary search over every reachable integer, running the chain exactly as onnxruntime does, finds the integer at
which the result changes. Where Sign could return exactly 0, the layer is a TernarySign; with a comparison, 0 falls on a side.

A sign of a sign (Larq's binarizer is sign(sign(x) + 0.1)) leaves the same bits, inverted bits or a constant in each channel.
It becomes part of the threshold that made the first sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from weakcell.emulator.importer.builder import Draft, Reach
from weakcell.emulator.importer.symbols import (
    INTEGER_RANKS,
    NO_PADS,
    Codes,
    Compared,
    Constant,
    Floats,
    Grid,
    Node,
    Real,
    Symbol,
    scalar,
)
from weakcell.emulator.ir.layers import Binarize, Encoding, Layer, Step, StoredTensor, TernarySign, Threshold, ValueSpec
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


def lower_sign(draft: Draft, node: Node) -> Symbol | None:
    """Sign of a grid or of floats; None for what it cannot do."""
    source, name = draft.symbol(node.input(0)), node.outputs[0]
    if isinstance(source, Grid) and _searchable(draft, source):
        return _sign(draft, node, source, name)
    if isinstance(source, Constant | Codes) or len(source.shape) not in INTEGER_RANKS:
        return None  # the sign of integers stays an integer tensor
    real = draft.real(node.input(0))
    if real.dtype != "float32":
        return None
    value = draft.integer_name(name)
    layer = Binarize(node.name, (real.value,), value, ZERO, False, False, True)
    draft.draw(layer, ValueSpec(value, "codes", real.shape, "int8"), Reach(-1, 1))
    return Grid(value, real.shape, SCALAR)


def lower_comparison(draft: Draft, node: Node) -> Symbol | None:
    """x > c and its kin, kept until it is known what the two outcomes mean."""
    test, (a, b) = _COMPARISONS[node.op_type], node.inputs[:2]
    if isinstance(draft.symbols[a], Constant):
        a, b, test = b, a, _MIRRORED[test]
    source, pivot = draft.symbol(a), draft.symbols[b]
    if not isinstance(source, Grid | Real) or not isinstance(pivot, Constant) or pivot.array.dtype != np.float32:
        return None
    if not _keeps_shape(source.shape, pivot):
        return None
    if isinstance(source, Real) and (source.dtype != "float32" or len(source.shape) not in INTEGER_RANKS):
        return None
    constant = per_channel(pivot.array, source.shape)
    if constant is None or (constant.ndim and isinstance(source, Grid) and draft.values[source.value].shape != source.shape):
        return None
    return Compared(a, source, test, constant)


def lower_where(draft: Draft, node: Node) -> Symbol | None:
    """Where(comparison, a, b) with two numbers."""
    condition, a, b = (draft.symbols[name] for name in node.inputs)
    if not isinstance(condition, Compared) or condition.levels is not None:
        return None
    if not isinstance(a, Constant) or not isinstance(b, Constant) or a.array.dtype != np.float32:
        return None
    high, low = _one_number(a), _one_number(b)
    if high is None or low is None or not np.isfinite(high) or not np.isfinite(low):
        return None
    return replace(condition, levels=(low, high)) if _keeps_shape(condition.shape, a, b) else None


def _keeps_shape(shape: tuple[int, ...], *constants: Constant) -> bool:
    """Whether a tensor of `shape` (without the batch) keeps its shape when it is broadcast with the constants."""
    try:
        return np.broadcast_shapes((1, *shape), *(c.array.shape for c in constants)) == (1, *shape)
    except ValueError:
        return False


def _one_number(constant: Constant) -> float | None:
    array = constant.array
    return float(array.reshape(-1)[0]) if array.size and np.all(array == array.reshape(-1)[0]) else None


def with_level_step(compared: Compared, step: Step) -> Compared | None:
    """A two-valued tensor after a float step with one constant, if that is what it still is."""
    if compared.levels is None or step.constant.ndim:
        return None
    with np.errstate(all="ignore"):
        low, high = step(np.array(compared.levels, np.float32))
    return replace(compared, levels=(float(low), float(high))) if np.isfinite(low) and np.isfinite(high) else None


def per_channel(constant: npt.NDArray[np.generic], shape: tuple[int, ...]) -> Floats | None:
    """A constant as a scalar or one number per channel of a tensor of `shape`; None if it varies otherwise."""
    array = constant.astype(np.float32)
    if array.size == 1:
        return array.reshape(())
    rank = len(shape) + 1
    padded = array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim <= rank else array
    if shape and padded.ndim == rank and padded.size == shape[0] and padded.shape[1] == shape[0]:
        return padded.reshape(-1)
    return None


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────


def compare(draft: Draft, compared: Compared, name: str) -> Symbol:
    """A two-valued tensor as a grid over bits, its two levels exactly as they are written."""
    assert compared.levels is not None
    low, high = compared.levels
    flipped = high < low
    source = compared.symbol
    if isinstance(source, Grid) and not _searchable(draft, source):
        source = draft.real(compared.source)
        compared = replace(compared, symbol=source)
    if isinstance(source, Real):
        value, view = draft.integer_name(name), source.shape
        draft.draw(_binarize(compared, flipped, name, value), _bits(value, source.shape), Reach(-1, 1, 2))
    else:
        if source.pool is not None and (compared.test in ("<", "<=")) != flipped:
            # a maximum of bits is their OR: it follows the test that rises, whose bits are the inverted ones
            flipped = not flipped
        value, view = _threshold(draft, source, compared.test, compared.pivot, flipped, name)
    up, down = (low, high) if flipped else (high, low)
    return _two_levels(Grid(value, view, SCALAR), down, up)


def _two_levels(bits: Grid, down: float, up: float) -> Grid:
    """The bits read as `up` (bit 1) and `down` (bit 0), both exact in float32."""
    scale, offset = np.float32((up - down) / 2), np.float32(down + (up - down) / 2)
    low, high = np.float32(min(down, up)), np.float32(max(down, up))
    steps = (Step("add", scalar(float(offset))),) if offset != 0 else ()
    if offset + scale != np.float32(up) or offset - scale != np.float32(down):
        # rounding misses a level: stretch the two values a little, then limit them to the levels
        scale = np.float32(scale + np.copysign(max(abs(low), abs(high)) * np.float32(2.0**-20), scale))
        steps = (*steps, Step("max", scalar(float(low))), Step("min", scalar(float(high))))
    if not np.isfinite(scale) or not np.isfinite(offset):
        raise ModelError(f"Importing the tensor {bits.value!r}", f"it is {down} or {up}", "Use levels below 1e38")
    return replace(bits, scale=scalar(float(scale)), steps=steps)


def _bits(name: str, shape: tuple[int, ...]) -> ValueSpec:
    return ValueSpec(name, "bits", shape, "uint64")


def _binarize(compared: Compared, flipped: bool, name: str, value: str) -> Layer:
    """A comparison of floats: `<` and `<=` are the inverted `>=` and `>` (they differ in NaN only)."""
    assert isinstance(compared.symbol, Real)
    below = compared.test in ("<", "<=")
    strict = compared.test in (">", "<=")
    return Binarize(name, (compared.symbol.value,), value, compared.pivot, strict, flipped != below)


def _threshold(draft: Draft, grid: Grid, test: str, pivot: Floats, flipped: bool, name: str) -> tuple[str, tuple[int, ...]]:
    """Draw the Threshold of `grid test pivot`; a pending pool follows on the bits."""
    reach = draft.reach[grid.value]
    chain, rising = _chain(draft, grid)
    above = rising == (test in (">", ">="))  # per channel: does the truth go from false to true?

    def outcome(q: Integers) -> Truth:
        return np.asarray(_TESTS[test](chain(q), pivot) == above)

    first = first_true(outcome, reach, rising.size)
    inverted = ~above
    never = first > reach.high
    cuts = np.where(never | (first <= reach.low), LOWEST, first)
    return _draw_threshold(draft, grid, cuts, (inverted != never) != flipped, name)


def integer_thresholds(draft: Draft, grid: Grid, pivots: Floats) -> tuple[Integers, Truth]:
    """For pivots (C, T), the integers at which `grid >= pivot` changes, and the channels where it becomes false there."""
    reach = draft.reach[grid.value]
    chain, rising = _chain(draft, grid)
    cuts = []
    for pivot in pivots.T:

        def outcome(q: Integers, pivot: Floats = pivot) -> Truth:
            return np.asarray((chain(q) >= pivot) == rising)

        found = first_true(outcome, reach, rising.size)
        cuts.append(np.where(found <= reach.low, LOWEST, np.minimum(found, HIGHEST)))
    return np.stack(cuts, axis=1), ~rising


def _draw_threshold(draft: Draft, grid: Grid, cuts: Integers, inverted: Truth, name: str) -> tuple[str, tuple[int, ...]]:
    """Draw (q >= cuts) != inverted of the grid's codes or bits; a sign of a sign changes the threshold of the first one."""
    spec = draft.values[grid.value]
    inputs: tuple[str, ...] = (grid.value,)
    same = spec.kind == "bits" and not np.any(inverted) and bool(np.all((cuts > -1) & (cuts <= 1)))
    if same:
        value = grid.value
    else:
        maker = draft.makers.get(grid.value)
        if isinstance(maker, Threshold | TernarySign):
            cuts, inverted = _through(draft, maker, cuts, inverted)
            inputs = maker.inputs
        value = draft.free(f"{name}.unpooled") if grid.pool is not None else draft.integer_name(name)
        threshold = draft.store(_stored(f"{name}.threshold", cuts))
        draft.draw(Threshold(name, inputs, value, threshold, inverted), _bits(value, spec.shape), Reach(-1, 1, 2))
    if grid.pool is not None:
        value = draft.pooled(value, grid.pool, name)
    return value, grid.shape


def _through(draft: Draft, maker: Threshold | TernarySign, cuts: Integers, inverted: Truth) -> tuple[Integers, Truth]:
    """(t >= cuts) != inverted, for the signs t of `maker`, as a threshold of the integers that `maker` reads.

    t is -1 or 1 (Threshold), or -1, 0 or 1 (TernarySign). Per channel the outcome is constant or changes at one of t's steps.
    """
    if isinstance(maker, Threshold):
        upper = lower = draft.tensors[maker.threshold].values.astype(np.int64)
    else:
        upper = draft.tensors[maker.upper].values.astype(np.int64)
        lower = np.minimum(draft.tensors[maker.lower].values.astype(np.int64) + 1, HIGHEST)  # the first integer with t >= 0
    always, never = cuts <= -1, cuts > 1
    # where the maker is inverted, t >= 1 is the inverted "as it was >= 0", and t >= 0 the inverted "as it was >= 1"
    at_upper = (cuts == 1) != maker.inverted
    made = np.where(always | never, LOWEST, np.where(at_upper, upper, lower))
    return made, np.where(always, inverted, np.where(never, ~inverted, inverted != maker.inverted))


def _stored(name: str, cuts: Integers) -> StoredTensor:
    return StoredTensor(name, "threshold", Encoding("signed", 32), cuts.astype(np.int32))


def _sign(draft: Draft, node: Node, grid: Grid, name: str) -> Grid:
    """Sign of a grid: a Threshold if 0 cannot come out, else a TernarySign."""
    reach = draft.reach[grid.value]
    chain, rising = _chain(draft, grid)
    turn = np.where(rising, np.float32(1), np.float32(-1))
    positive = first_true(lambda q: chain(q) * turn > 0, reach, rising.size)
    reached = first_true(lambda q: chain(q) * turn >= 0, reach, rising.size)
    # a zero is reachable if an integer low + k * step lies in [reached, positive)
    first = reach.low + -(-(reached - reach.low) // reach.step) * reach.step
    if np.any((first < positive) & (first <= reach.high)):
        return _draw_ternary(draft, node, grid, positive, reached, ~rising, name)
    never = reached > reach.high
    cuts = np.where(never | (reached <= reach.low), LOWEST, reached)
    value, view = _draw_threshold(draft, grid, cuts, ~rising != never, name)
    return Grid(value, view, SCALAR)


def _draw_ternary(draft: Draft, node: Node, grid: Grid, positive: Integers, reached: Integers, inverted: Truth, name: str) -> Grid:
    spec, reach = draft.values[grid.value], draft.reach[grid.value]
    copied = spec.dtype == "int8" and (reach.low, reach.high) == (-1, 1) and not np.any(inverted)
    if copied and np.all(positive == 1) and np.all(reached == 0):  # the sign of a sign with zeros
        value = grid.value if grid.pool is None else draft.pooled(grid.value, grid.pool, name)
        return Grid(value, grid.shape, SCALAR)
    upper = np.where(positive <= reach.low, LOWEST, np.where(positive > reach.high, HIGHEST, positive))
    lower = np.where(reached <= reach.low, LOWEST, np.where(reached > reach.high, HIGHEST, reached - 1))
    value = draft.free(f"{name}.unpooled") if grid.pool is not None else draft.integer_name(name)
    upper_name = draft.store(_stored(f"{name}.upper", upper))
    lower_name = draft.store(_stored(f"{name}.lower", lower))
    layer = TernarySign(node.name, (grid.value,), value, upper_name, lower_name, inverted)
    draft.draw(layer, ValueSpec(value, "codes", spec.shape, "int8"), Reach(-1, 1))
    if grid.pool is not None:
        value = draft.pooled(value, grid.pool, name)
    return Grid(value, grid.shape, SCALAR)


# ── the search ──────────────────────────────────────────────────────────────────────────────────────


def _searchable(draft: Draft, grid: Grid) -> bool:
    """Whether a threshold on the integers can stand for the grid: no pending padding, and finite at every step.

    Padding adds a third value, 0. Past an overflow a chain of float steps need not be monotone.
    """
    reach = draft.reach[grid.value]
    with np.errstate(all="ignore"):
        x = (np.array([[reach.low], [reach.high]]) - grid.zero_point).astype(np.float32) * grid.scale
        ends = [x]
        for step in grid.steps:
            ends.append(x := step(x))
    return grid.pads == NO_PADS and all(bool(np.all(np.isfinite(end))) for end in ends)


def _chain(draft: Draft, grid: Grid) -> tuple[Callable[[Integers], Floats], Truth]:
    """The float32 function of a code, channel by channel, and whether it rises (or else falls) with the code."""
    channels = draft.values[grid.value].channels
    rising = np.broadcast_to(grid.scale >= 0, (channels,)).copy()
    for step in grid.steps:
        if step.op in ("mul", "div"):
            rising ^= np.broadcast_to(step.constant < 0, (channels,))

    def chain(q: Integers) -> Floats:
        x: Floats = (q - grid.zero_point).astype(np.float32) * grid.scale
        with np.errstate(all="ignore"):
            for step in grid.steps:
                x = step(x)
        return x

    return chain, rising


def first_true(outcome: Callable[[Integers], Truth], reach: Reach, channels: int) -> Integers:
    """Per channel the smallest reachable integer with a true outcome (high + 1 if none), by bisection: false before true."""
    low = np.full(channels, reach.low, np.int64)
    high = np.full(channels, reach.high + 1, np.int64)
    while np.any(low < high):
        middle = (low + high) >> 1
        true = outcome(middle)
        active = low < high
        high = np.where(active & true, middle, high)
        low = np.where(active & ~true, middle + 1, low)
    return low
