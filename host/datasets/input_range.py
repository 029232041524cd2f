"""The range of values that a network's inputs are made for, and whether data fit it.

The first quantizer behind an input covers a range: QuantizeLinear and Quant clip values beyond it. Data that were scaled in another
way than the calibration data (raw pixels instead of 0 to 1) saturate it, or use only a few of its steps. The results are then
correct for a network that nobody wants. `check_data` warns of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import infer
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Binarize, DynamicQuantize, Quantize, Reshape
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.plan.plan import compile_plan
from weakcell.memmodels.printable import printable

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)
"""Without a handler, Python writes its warnings on stderr."""

MOST_OUTSIDE, LEAST_SPAN = 0.05, 0.01
"""There is a warning if a larger share of values lies beyond the range, or if the values span a smaller share of it."""

_IMAGES = 256
_MOVES = ("Cast", "Concat", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_LIMITS = ("Clip", "Max", "Min", "Relu", "qonnx.Quant")
_AFFINE = ("Add", "Div", "Mul", "Sub")


@dataclass(frozen=True)
class InputRange:
    """One input of a network.

    Attributes:
        name: The input.
        shape: Its shape without the batch.
        dtype: The type that a run takes.
        quantizer: What first makes integers of it, in words.
        low: The smallest value that the quantizer covers, in the input's own unit; None if there is no such limit.
        high: The largest.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantizer: str
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """The range in words."""
        return "any" if self.low is None or self.high is None else f"{self.low:.6g} … {self.high:.6g}"


@dataclass(frozen=True)
class InputCheck:
    """How data fill the range of an input.

    Attributes:
        input: The input.
        smallest: The smallest value of the data.
        largest: The largest.
        outside: The share of values beyond the range; None if there is none.
        span: The share of the range that the values span.
        warning: A sentence for people; None if the data fit.
    """

    input: InputRange
    smallest: float
    largest: float
    outside: float | None = None
    span: float | None = None
    warning: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers and text, for a results file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _FirstQuantizer:
    """The first layer that quantizes an input, and the layers on the way to it."""

    layer: Layer | None
    path: tuple[Layer, ...]


def input_ranges(network: Network) -> tuple[InputRange, ...]:
    """Return every input of a network with the range of its first quantizer."""
    return tuple(_range_of(network, name, _find_quantizer(network, name)) for name in network.inputs)


def check_data(network: Network, arrays: Mapping[str, Array], data: str) -> tuple[InputCheck, ...]:
    """Compare data with the ranges of the inputs, and log a warning for each input that they do not fit.

    Args:
        network: the imported network.
        arrays: (n, …) by input name, checked already; inputs that are missing are left out.
        data: what the data are called in a warning.
    """
    checks = tuple(_check_input(network, name, np.asarray(arrays[name]), data) for name in network.inputs if name in arrays)
    for check in checks:
        if check.warning:
            log.warning("%s", printable(check.warning))
    return checks


# ── the first quantizer ─────────────────────────────────────────────────────────────────────────────


def _find_quantizer(network: Network, name: str) -> _FirstQuantizer:
    """Find the first quantizer behind an input, through operators that move, scale or limit values."""
    waiting: list[tuple[str, tuple[Layer, ...]]] = [(name, ())]
    quantizers: list[_FirstQuantizer] = []
    while waiting:
        value, path = waiting.pop(0)
        for layer in network.layers:
            if value not in layer.inputs:
                continue
            if isinstance(layer, Quantize | DynamicQuantize | Binarize):
                quantizers.append(_FirstQuantizer(layer, path))
            elif len(layer.inputs) == 1 and network.values[layer.output].kind == "float" and _passes(layer):
                waiting.append((layer.output, (*path, layer)))
    order = (Quantize, DynamicQuantize, Binarize)
    return min(quantizers, key=lambda quantizer: order.index(type(quantizer.layer)), default=_FirstQuantizer(None, ()))  # type: ignore[arg-type]


def _passes(layer: Layer) -> bool:
    if not isinstance(layer, FloatOperator):
        return isinstance(layer, Reshape)
    data = layer.operands[0] is None  # not the indices of a table
    return not layer.stored and (layer.op_type in _AFFINE or (data and layer.op_type in (*_MOVES, *_LIMITS)))


def _range_of(network: Network, name: str, quantizer: _FirstQuantizer) -> InputRange:
    spec, layer = network.values[name], quantizer.layer
    if spec.kind == "codes" and spec.dtype == "int32":
        return InputRange(name, spec.shape, "float32", "whole numbers, which the first layer adds up", -32767.0, 32767.0)
    if spec.kind == "codes":
        info = np.iinfo(spec.dtype)
        return InputRange(name, spec.shape, spec.dtype, f"{spec.dtype} in the file", float(info.min), float(info.max))
    known = InputRange(name, spec.shape, spec.dtype, f"none: {spec.dtype}")
    if isinstance(layer, Quantize):
        low, high = _range_in_input_unit(layer, quantizer.path)
        return replace(known, quantizer=f"QuantizeLinear or Quant {layer.name!r}", low=low, high=high)
    if isinstance(layer, DynamicQuantize):
        return replace(known, quantizer=f"DynamicQuantizeLinear {layer.name!r}: whatever comes")
    if isinstance(layer, Binarize):
        pivot = "0" if layer.ternary else " … ".join(f"{x:.6g}" for x in np.unique([layer.pivot.min(), layer.pivot.max()]))
        return replace(known, quantizer=f"binarizer {layer.name!r}: signs around {pivot}")
    return known


def _ends(layer: Quantize) -> tuple[float, float]:
    """Return the values of the lowest and the highest code."""
    return (layer.low - layer.zero_point) * layer.scale, (layer.high - layer.zero_point) * layer.scale


def _range_in_input_unit(layer: Quantize, path: tuple[Layer, ...]) -> tuple[float | None, float | None]:
    """Return both ends in the unit of the input: additions and multiplications with constants are undone."""
    ends = np.array(_ends(layer), np.float64).reshape(2, 1)
    for step in reversed(path):
        if not isinstance(step, FloatOperator) or step.op_type not in _AFFINE:
            continue
        first = step.operands[0] is None
        constant = step.operands[1 if first else 0]
        if not isinstance(constant, np.ndarray):
            return None, None
        try:
            ends = _solve_for_input(step.op_type, ends, constant.astype(np.float64).reshape(1, -1), first)
        except ValueError:  # constants along different axes
            return None, None
    if not np.all(np.isfinite(ends)):
        return None, None
    return float(ends.min()), float(ends.max())


def _solve_for_input(op_type: str, y: Array, c: Array, first: bool) -> Array:
    """Return the x of y = x op c (`first`) or of y = c op x."""
    with np.errstate(all="ignore"):
        if op_type == "Add":
            return np.asarray(y - c)
        if op_type == "Sub":
            return np.asarray(y + c if first else c - y)
        if op_type == "Mul":
            return np.asarray(y / c)
        return np.asarray(y * c if first else c / y)


# ── data ────────────────────────────────────────────────────────────────────────────────────────────


def _check_input(network: Network, name: str, x: Array, data: str) -> InputCheck:
    quantizer = _find_quantizer(network, name)
    known = _range_of(network, name, quantizer)
    if not x.size or x.dtype.kind not in "buif":
        return InputCheck(known, 0.0, 0.0)
    check = InputCheck(known, float(x.min()), float(x.max()))
    spec, layer = network.values[name], quantizer.layer
    if spec.kind == "codes" and spec.dtype != "int32" and known.low is not None and known.high is not None:
        return _with_shares(check, x, (known.low, known.high), 0.5, data)
    if spec.kind == "float" and isinstance(layer, Quantize):
        return _with_shares(check, _quantizer_input(network, name, quantizer, x), _ends(layer), layer.scale / 2, data)
    if spec.kind == "float" and isinstance(layer, Binarize) and layer.pivot.size == 1:
        values = _quantizer_input(network, name, quantizer, x)
        pivot = 0.0 if layer.ternary else float(layer.pivot.reshape(-1)[0])
        if (values.min() > pivot or values.max() < pivot) and values.size > 1:
            text = f"all its values lie on one side of {pivot:.6g}, where {layer.name!r} takes their signs"
            return replace(check, warning=_warning(check, text, data))
    return check


def _quantizer_input(network: Network, name: str, quantizer: _FirstQuantizer, x: Array) -> Array:
    """Compute the values that the first quantizer reads, for the first 256 images."""
    if not quantizer.path:
        return x
    value = quantizer.path[-1].output
    part = replace(network, inputs=(name,), outputs=(value,), layers=quantizer.path, tensors={})
    return infer(compile_plan(part), {name: x[:_IMAGES]})[value]


def _with_shares(check: InputCheck, values: Array, ends: tuple[float, float], half: float, data: str) -> InputCheck:
    """Return the check with its shares. `half` is half a step: a value that rounds to the last code is not outside."""
    low, high = ends
    outside = float(np.mean((values < low - half) | (values > high + half)))
    span = float((float(values.max()) - float(values.min())) / (high - low)) if high > low else 1.0
    check = replace(check, outside=outside, span=span)
    if outside > MOST_OUTSIDE:
        return replace(check, warning=_warning(check, f"{outside:.1%} of its values lie beyond the range", data))
    if span < LEAST_SPAN:
        return replace(check, warning=_warning(check, f"its values span {span:.2%} of the range", data))
    return check


def _warning(check: InputCheck, found: str, data: str) -> str:
    known = check.input
    covers = f", which covers {known.text}" if known.low is not None else ""
    return (
        f"Warning: the data {data!r} do not fit the input {known.name!r}: {found}. They hold {check.smallest:.6g} … "
        f"{check.largest:.6g}; the first quantizer is {known.quantizer}{covers}. x is handed to the network exactly as stored: "
        "scale it as the data of the training and calibration were."
    )
