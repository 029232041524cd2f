"""Which values a network's inputs are made for, and whether data fit them.

The first quantizer behind an input covers a range: QuantizeLinear and Quant clip what lies beyond. Data that were scaled in
another way than the calibration data (raw pixels where 0 to 1 is expected) saturate it, or use a few of its steps only.
The numbers that follow are then right for what was asked, and useless. `check_data` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.executor import infer
from weakcell.emulator.ir.layers import Binarize, DynamicQuantize, FloatOperator, Layer, Network, Quantize, Reshape
from weakcell.emulator.plan.plan import compile_plan

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)
"""Without a handler, Python writes its warnings on stderr."""

MOST_OUTSIDE, LEAST_SPAN = 0.05, 0.01
"""Warned of: a larger share of values beyond the range; values that span a smaller share of it."""

_IMAGES = 256
_MOVES = ("Cast", "Concat", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_LIMITS = ("Clip", "Max", "Min", "Relu", "qonnx.Quant")
_AFFINE = ("Add", "Div", "Mul", "Sub")


@dataclass(frozen=True)
class InputRange:
    """One input of a network.

    shape: without the batch. dtype: what a run takes. quantizer: what first makes integers of it, in words. low, high: the values
    that it covers, in the input's own unit; None where it takes whatever comes, nothing quantizes it, or the unit is lost.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantizer: str
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """The range as people read it."""
        return "any" if self.low is None or self.high is None else f"{self.low:.6g} … {self.high:.6g}"


@dataclass(frozen=True)
class InputCheck:
    """How data fill the range of an input. outside: the share of values beyond it; span: of the range that they span."""

    input: InputRange
    smallest: float
    largest: float
    outside: float | None = None
    span: float | None = None
    warning: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and text, for a results file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Reader:
    """The layer that quantizes what `path` makes of an input."""

    layer: Layer | None
    path: tuple[Layer, ...]


def input_ranges(network: Network) -> tuple[InputRange, ...]:
    """Every input of a network with the range of its first quantizer."""
    return tuple(_range_of(network, name, _reader_of(network, name)) for name in network.inputs)


def check_data(network: Network, arrays: Mapping[str, Array], data: str) -> tuple[InputCheck, ...]:
    """Compare data with the ranges of the inputs, and log a warning for each input that they do not fit.

    Args:
        network: the imported network.
        arrays: (n, …) by input name, checked already; inputs that are missing are left out.
        data: what the data are called in a warning.
    """
    checks = tuple(_checked(network, name, np.asarray(arrays[name]), data) for name in network.inputs if name in arrays)
    for check in checks:
        if check.warning:
            log.warning("%s", check.warning)
    return checks


# ── the first quantizer ─────────────────────────────────────────────────────────────────────────────


def _reader_of(network: Network, name: str) -> _Reader:
    """The first quantizer behind an input, through operators that move, scale or limit values."""
    waiting: list[tuple[str, tuple[Layer, ...]]] = [(name, ())]
    found: list[_Reader] = []
    while waiting:
        value, path = waiting.pop(0)
        for layer in network.layers:
            if value not in layer.inputs:
                continue
            if isinstance(layer, Quantize | DynamicQuantize | Binarize):
                found.append(_Reader(layer, path))
            elif len(layer.inputs) == 1 and network.values[layer.output].kind == "float" and _passes(layer):
                waiting.append((layer.output, (*path, layer)))
    order = (Quantize, DynamicQuantize, Binarize)
    return min(found, key=lambda reader: order.index(type(reader.layer)), default=_Reader(None, ()))  # type: ignore[arg-type]


def _passes(layer: Layer) -> bool:
    return isinstance(layer, Reshape) or (isinstance(layer, FloatOperator) and layer.op_type in (*_MOVES, *_LIMITS, *_AFFINE))


def _range_of(network: Network, name: str, reader: _Reader) -> InputRange:
    spec, layer = network.values[name], reader.layer
    if spec.kind == "codes" and spec.dtype == "int32":
        return InputRange(name, spec.shape, "float32", "whole numbers, which the first layer adds up", -32767.0, 32767.0)
    if spec.kind == "codes":
        info = np.iinfo(spec.dtype)
        return InputRange(name, spec.shape, spec.dtype, f"{spec.dtype} in the file", float(info.min), float(info.max))
    known = InputRange(name, spec.shape, spec.dtype, f"none: {spec.dtype}")
    if isinstance(layer, Quantize):
        low, high = _back(layer, reader.path)
        return replace(known, quantizer=f"QuantizeLinear or Quant {layer.name!r}", low=low, high=high)
    if isinstance(layer, DynamicQuantize):
        return replace(known, quantizer=f"DynamicQuantizeLinear {layer.name!r}: whatever comes")
    if isinstance(layer, Binarize):
        pivot = "0" if layer.ternary else " … ".join(f"{x:.6g}" for x in np.unique([layer.pivot.min(), layer.pivot.max()]))
        return replace(known, quantizer=f"binarizer {layer.name!r}: signs around {pivot}")
    return known


def _ends(layer: Quantize) -> tuple[float, float]:
    """The values of the lowest and the highest code."""
    return (layer.low - layer.zero_point) * layer.scale, (layer.high - layer.zero_point) * layer.scale


def _back(layer: Quantize, path: tuple[Layer, ...]) -> tuple[float | None, float | None]:
    """The ends in the unit of the input: additions and multiplications with constants undone."""
    ends = np.array(_ends(layer), np.float64).reshape(2, 1)
    for step in reversed(path):
        if not isinstance(step, FloatOperator) or step.op_type not in _AFFINE:
            continue
        first = step.operands[0] is None
        constant = step.operands[1 if first else 0]
        if not isinstance(constant, np.ndarray):
            return None, None
        try:
            ends = _undone(step.op_type, ends, constant.astype(np.float64).reshape(1, -1), first)
        except ValueError:  # constants along different axes
            return None, None
    if not np.all(np.isfinite(ends)):
        return None, None
    return float(ends.min()), float(ends.max())


def _undone(op_type: str, y: Array, c: Array, first: bool) -> Array:
    """The x of y = x op c (first) or y = c op x."""
    with np.errstate(all="ignore"):
        if op_type == "Add":
            return np.asarray(y - c)
        if op_type == "Sub":
            return np.asarray(y + c if first else c - y)
        if op_type == "Mul":
            return np.asarray(y / c)
        return np.asarray(y * c if first else c / y)


# ── data ────────────────────────────────────────────────────────────────────────────────────────────


def _checked(network: Network, name: str, x: Array, data: str) -> InputCheck:
    reader = _reader_of(network, name)
    known = _range_of(network, name, reader)
    if not x.size or x.dtype.kind not in "buif":
        return InputCheck(known, 0.0, 0.0)
    check = InputCheck(known, float(x.min()), float(x.max()))
    spec, layer = network.values[name], reader.layer
    if spec.kind == "codes" and spec.dtype != "int32" and known.low is not None and known.high is not None:
        return _judged(check, x, (known.low, known.high), 0.5, data)
    if spec.kind == "float" and isinstance(layer, Quantize):
        return _judged(check, _made(network, name, reader, x), _ends(layer), layer.scale / 2, data)
    if spec.kind == "float" and isinstance(layer, Binarize) and layer.pivot.size == 1:
        made = _made(network, name, reader, x)
        pivot = 0.0 if layer.ternary else float(layer.pivot.reshape(-1)[0])
        if (made.min() > pivot or made.max() < pivot) and made.size > 1:
            text = f"all its values lie on one side of {pivot:.6g}, where {layer.name!r} takes their signs"
            return replace(check, warning=_sentence(check, text, data))
    return check


def _made(network: Network, name: str, reader: _Reader, x: Array) -> Array:
    """What the first quantizer reads, for some of the images."""
    if not reader.path:
        return x
    value = reader.path[-1].output
    part = replace(network, inputs=(name,), outputs=(value,), layers=reader.path, tensors={})
    return infer(compile_plan(part), {name: x[:_IMAGES]})[value]


def _judged(check: InputCheck, values: Array, ends: tuple[float, float], half: float, data: str) -> InputCheck:
    """The check with its shares. half: half a step: what rounds to the last code is not beyond it."""
    low, high = ends
    outside = float(np.mean((values < low - half) | (values > high + half)))
    span = float((float(values.max()) - float(values.min())) / (high - low)) if high > low else 1.0
    check = replace(check, outside=outside, span=span)
    if outside > MOST_OUTSIDE:
        return replace(check, warning=_sentence(check, f"{outside:.1%} of its values lie beyond the range", data))
    if span < LEAST_SPAN:
        return replace(check, warning=_sentence(check, f"its values span {span:.2%} of the range", data))
    return check


def _sentence(check: InputCheck, found: str, data: str) -> str:
    known = check.input
    covers = f", which covers {known.text}" if known.low is not None else ""
    return (
        f"Warning: the data {data!r} do not fit the input {known.name!r}: {found}. They hold {check.smallest:.6g} … "
        f"{check.largest:.6g}; the first quantizer is {known.quantizer}{covers}. x is handed to the network exactly as stored: "
        "scale it as the data of the training and calibration were."
    )
