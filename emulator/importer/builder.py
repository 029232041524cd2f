"""The network under construction.

Symbols by ONNX name, layers so far, and the operations that every lowering needs.

`as_float` makes layers that compute a symbol as floats, `materialize_view` turns a flattened view into a Reshape, `symbol`
turns a comparison with numeric levels into bits. `finish` removes dead layers, so a lowering may add a better variant and
leave the old one unused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from weakcell.emulator.importer.symbols import (
    NO_PADS,
    Array,
    Codes,
    Constant,
    DynamicQuantized,
    Floats,
    FloatValue,
    Node,
    OperatorCall,
    PendingComparison,
    PendingConcat,
    PendingMean,
    PendingPointwise,
    PendingQuantized,
    PendingSum,
    RowProduct,
    RowSums,
    Symbol,
    scalar,
)
from weakcell.emulator.importer.tensor_store import TensorStore, unused_name
from weakcell.emulator.importer.windows import onnx_pads, padded_shape, window_attributes
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Dequantize, MaxPool, Reshape, Step
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.ir.values import ValueSpec, Window
from weakcell.emulator.onnx_ops import CACHE
from weakcell.memmodels.errors import ModelError


class BatchPlace(NamedTuple):
    """The batch in a tensor.

    Attributes:
        axis: which counts images, and maybe other things.
        inner: how many elements of this axis an image has inside of the batch: 1 in [12 * 3, 16], 12 in [3 * 12, 16].
    """

    axis: int
    inner: int


@dataclass(frozen=True)
class ValueRange:
    """Every integer that a value can hold, whatever the faults.

    Low, low + step, …, high.
    """

    low: int
    high: int
    step: int = 1


@dataclass
class NetworkBuilder:
    """The layers, values and tensors of a network under construction.

    Attributes:
        compare: makes a comparison into bits.
        lower: gives the outputs of a node their symbols.
        outputs: names of the graph's outputs.
        symbols: what each ONNX tensor means.
        ranges: the integers that a value can hold.
        float_values: float values that were made of symbols.
        stored: the stored tensors.
        makers: the layer that makes each value.
        sequences: the tensors of each ONNX sequence.
        written_nodes: how many nodes of graphs inside of nodes were written out.
        unbatched: ONNX tensors whose first axis is not the batch: their symbols have the whole shape of one image.
        strayed: ONNX tensors that come from such ones: a first axis of size 1 may be another axis than the batch.
        batch_places: where the batch is in ONNX tensors of a file that fixes a batch of several images (`fixed_batch.py`).
        whole_batch: constants that follow from shapes, in a file that fixes a batch of several images: what they are for all of
            these, or None if that cannot be told. Their symbols are for one image.
        batch: the number of images that the file fixes; None if it leaves it open.
        frozen: stored tensors whose integers, as they are in the file, became part of a layer; with the node that read them.
        shared: names of integers that count as shared (`Recipe.kind`).
        literals: the constants of loop bodies by the identity of their array. Each trip reads the same integers.
    """

    name: str
    compare: Callable[[NetworkBuilder, PendingComparison, str], Symbol]
    lower: Callable[[NetworkBuilder, Node], None]
    outputs: frozenset[str] = frozenset()
    symbols: dict[str, Symbol] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    values: dict[str, ValueSpec] = field(default_factory=dict)
    stored: TensorStore = field(default_factory=TensorStore)
    ranges: dict[str, ValueRange] = field(default_factory=dict)
    float_values: dict[str, FloatValue] = field(default_factory=dict)
    makers: dict[str, Layer] = field(default_factory=dict)
    sequences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    written_nodes: int = 0
    unbatched: set[str] = field(default_factory=set)
    strayed: set[str] = field(default_factory=set)
    batch_places: dict[str, BatchPlace] = field(default_factory=dict)
    whole_batch: dict[str, Array | None] = field(default_factory=dict)
    batch: int | None = None
    frozen: dict[str, Node] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    literals: dict[int, Constant] = field(default_factory=dict)

    # ── names, values and tensors ───────────────────────────────────────────────────────────────────

    def unique_name(self, name: str) -> str:
        """Return `name`, or `name.2`, `name.3`, … if a value has it."""
        return unused_name(name, self.values)

    def integer_name(self, tensor: str) -> str:
        """Return the name for the codes or bits of a float ONNX tensor.

        It is the tensor's own name, unless the tensor is a graph output: that name is for its floats.
        """
        return self.unique_name(f"{tensor}.codes" if tensor in self.outputs else tensor)

    def add_layer(self, layer: Layer, spec: ValueSpec, value_range: ValueRange | None = None) -> str:
        """Append a layer that makes the value `spec`, and return the value's name.

        Raises:
            ModelError: the layer cannot read a value of this kind (float, codes or bits).
        """
        for name in layer.inputs:
            if self.values[name].kind not in layer.READS:
                found = f"its input {name!r} is held as {self.values[name].kind}, and {type(layer).__name__} reads {layer.READS}"
                raise ModelError(f"Importing the layer {layer.name!r}", found, "Report it with the file")
        check_size(spec)
        self.layers.append(layer)
        self.makers[spec.name] = layer
        self.values[spec.name] = spec
        if value_range is not None:
            self.ranges[spec.name] = value_range
        return spec.name

    def is_accumulator(self, pending: PendingQuantized) -> bool:
        """Return whether the codes are sums that no quantization has rounded yet."""
        return self.values[pending.value].dtype == "int32"

    # ── symbols ─────────────────────────────────────────────────────────────────────────────────────

    def symbol(self, name: str) -> Symbol:
        """Return what an ONNX tensor means.

        A two-valued tensor with numeric levels becomes bits now.
        """
        symbol = self.symbols[name]
        if isinstance(symbol, PendingComparison) and symbol.levels is not None:
            symbol = self.symbols[name] = self.compare(self, symbol, name)
        return symbol

    def onnx_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an ONNX tensor for one image, as the file sees it with a batch of 1."""
        symbol = self.symbols[name]
        if isinstance(symbol, Constant):
            return symbol.shape
        return symbol.shape if name in self.unbatched else (1, *symbol.shape)

    def constant(self, node: Node, index: int) -> Constant | None:
        """Return an input that must be constant, None if it is left out."""
        name = node.input(index)
        if not name:
            return None
        symbol = self.symbols[name]
        if not isinstance(symbol, Constant):
            raise ModelError(f"Importing {node}", f"its input {name!r} is computed at run time", "Export it as a constant")
        return symbol

    def materialize_view(self, pending: PendingQuantized, tensor: str) -> PendingQuantized:
        """Return the tensor with a value of its own shape.

        A flattened view becomes a Reshape layer.
        """
        spec = self.values[pending.value]
        if spec.shape == pending.shape:
            return pending
        name = self.unique_name(f"{tensor}.flat")
        layer = Reshape(f"{tensor}.reshape", (pending.value,), name)
        self.add_layer(layer, replace(spec, name=name, shape=pending.shape), self.ranges.get(pending.value))
        area = math.prod(spec.shape) // spec.channels
        steps = tuple(Step(s.op, _repeat_per_element(s.constant, area)) for s in pending.steps)
        return replace(pending, value=name, scale=_repeat_per_element(pending.scale, area), steps=steps)

    def as_float(self, name: str) -> FloatValue:
        """Return the tensor as a float value; layers are added if none makes it yet."""
        if name not in self.float_values:
            self.float_values[name] = self._make_float(name)
        return self.float_values[name]

    def _make_float(self, name: str) -> FloatValue:
        symbol = self.symbol(name)
        if isinstance(symbol, FloatValue):
            return symbol
        if isinstance(symbol, PendingQuantized):
            return self.dequantize(symbol, name)
        if isinstance(symbol, Codes):
            real = self.dequantize(PendingQuantized(symbol.value, symbol.shape, scalar(1), self._zero(symbol.value)), name)
            return self._add_zero_point(real, self._zero(symbol.value), name)
        if isinstance(symbol, PendingSum):
            parts = (self.dequantize(symbol.left, f"{name}.left"), self.dequantize(symbol.right, f"{name}.right"))
            return self._apply_steps(self.add_float_operator(name, OperatorCall("Add", parts), symbol.shape), symbol.steps, name)
        if isinstance(symbol, PendingMean):
            return self._mean_as_float(symbol, name)
        if isinstance(symbol, PendingPointwise):
            return self._pointwise_as_float(symbol, name)
        if isinstance(symbol, PendingConcat):
            reals = tuple(self.dequantize(part, f"{name}.part") for part in symbol.parts)
            return self.add_float_operator(name, OperatorCall("Concat", reals, {"axis": symbol.axis}), symbol.shape)
        if isinstance(symbol, RowSums):
            return self._row_sums_as_float(symbol, name)
        if isinstance(symbol, RowProduct):
            real = self.dequantize(symbol.pending, f"{name}.rows")
            return self._as_rows(self.reshape_float(real, real.shape[:2], f"{name}.columns"), symbol.shape, name)
        if isinstance(symbol, DynamicQuantized):
            found = f"{name!r} is an output of DynamicQuantizeLinear and not read by an integer sum"
            raise ModelError(f"Importing {self.name}", found, "Export the model again, or quantize it statically")
        if isinstance(symbol, PendingComparison):
            source = symbol.symbol if isinstance(symbol.symbol, FloatValue) else self.dequantize(symbol.symbol, symbol.source)
            operator = {">": "Greater", ">=": "GreaterOrEqual", "<": "Less", "<=": "LessOrEqual"}[symbol.test]
            return self.add_float_operator(
                name, OperatorCall(operator, (source, _broadcastable(symbol.pivot, source.shape))), symbol.shape, "bool"
            )
        raise ModelError(f"Importing {self.name}", f"the tensor {name!r} is constant", "Remove it from the graph's outputs")

    def as_typed(self, name: str) -> FloatValue:
        """Return an integer tensor as an ONNX operator sees it.

        Integers of its own type, exactly.
        """
        symbol, key = self.symbols[name], f"{name}:typed"
        if not isinstance(symbol, Codes):
            return self.as_float(name)
        if key not in self.float_values:
            dtype, output = self.values[symbol.value].dtype, self.unique_name(f"{name}.typed")
            self.add_layer(Reshape(output, (symbol.value,), output), ValueSpec(output, "float", symbol.shape, dtype))
            self.float_values[key] = FloatValue(output, symbol.shape, dtype)
        return self.float_values[key]

    def _zero(self, value: str) -> int:
        return self.values[value].zero_point

    def _add_zero_point(self, real: FloatValue, zero_point: int, name: str) -> FloatValue:
        """Undo the subtraction of Dequantize: a Cast reads codes as numbers."""
        if zero_point == 0:
            return real
        return self.add_float_operator(name, OperatorCall("Add", (real, scalar(zero_point))), real.shape)

    def _mean_as_float(self, mean: PendingMean, name: str) -> FloatValue:
        source, w = self.dequantize(mean.source, f"{name}.source"), mean.window
        attributes = {**window_attributes(w, len(mean.pooled) - 1), "count_include_pad": int(mean.count_include_pad)}
        pooled = self.add_float_operator(name, OperatorCall("AveragePool", (source,), attributes, 19), mean.pooled)
        return self._apply_steps(self.reshape_float(pooled, mean.shape, name), mean.steps, name)

    def _row_sums_as_float(self, sums: RowSums, name: str) -> FloatValue:
        """Return integer sums (O, rows, 1) as an ONNX tensor (…, O): int32, or float32 after its Cast."""
        outputs, rows, _ = self.values[sums.value].shape
        output = self.unique_name(f"{name}.columns")
        self.add_layer(Reshape(output, (sums.value,), output), ValueSpec(output, "float", (outputs, rows), "int32"))
        real = FloatValue(output, (outputs, rows), "int32")
        if sums.real:
            real = self.add_float_operator(name, OperatorCall("Cast", (real,), {"to": 1}), real.shape)
        return self._as_rows(real, sums.shape, name)

    def _as_rows(self, real: FloatValue, shape: tuple[int, ...], name: str) -> FloatValue:
        """Return a matrix (O, rows), turned around and under the shape (…, O)."""
        turned = OperatorCall("Transpose", (real,), {"perm": [0, 2, 1]})
        return self.reshape_float(self.add_float_operator(name, turned, real.shape[::-1], real.dtype), shape, name)

    def _pointwise_as_float(self, pointwise: PendingPointwise, name: str) -> FloatValue:
        real = self.dequantize(pointwise.source, f"{name}.source")
        for op in pointwise.operators:
            call = OperatorCall(op.op_type, (real, *op.constants), op.attributes, op.opset)
            real = self.add_float_operator(name, call, pointwise.shape)
        return real

    def dequantize(self, pending: PendingQuantized, name: str) -> FloatValue:
        """Add layers that compute a pending tensor in float32.

        Dequantize, each step, pool, padding, reshape.
        """
        spec, steps, bias = self.values[pending.value], pending.steps, None
        if steps and steps[0].op == "add":
            bias, steps = steps[0].constant, steps[1:]
        output = self.unique_name(name if name not in self.values else f"{name}.float")
        if steps or pending.pool is not None or pending.pads != NO_PADS or spec.shape != pending.shape:
            output = self.unique_name(f"{name}.dequantized")
        layer = Dequantize(f"{name}.dequantize", (pending.value,), output, pending.scale, bias)
        self.add_layer(layer, ValueSpec(output, "float", spec.shape))
        real = self._apply_steps(FloatValue(output, spec.shape), steps, name)
        if pending.pool is not None:
            w = pending.pool
            size = w.output_shape(spec.channels, spec.shape)
            real = self.add_float_operator(name, OperatorCall("MaxPool", (real,), window_attributes(w, len(size) - 1)), size)
        if pending.pads != NO_PADS:
            real = self.add_float_operator(
                name, OperatorCall("Pad", (real, onnx_pads(pending.pads, len(real.shape)))), padded_shape(real.shape, pending.pads)
            )
        return self.reshape_float(real, pending.shape, name)

    def _apply_steps(self, real: FloatValue, steps: tuple[Step, ...], name: str) -> FloatValue:
        for step in steps:
            operands = (real, _broadcastable(step.constant, real.shape))
            real = self.add_float_operator(name, OperatorCall(step.onnx_operator, operands), real.shape)
        return real

    def reshape_float(self, real: FloatValue, shape: tuple[int, ...], name: str) -> FloatValue:
        """Return the same floats under another shape."""
        if real.shape == shape:
            return real
        output = self.unique_name(f"{name}.reshape")
        self.add_layer(Reshape(output, (real.value,), output), ValueSpec(output, "float", shape, real.dtype))
        return FloatValue(output, shape, real.dtype)

    def add_float_operator(
        self,
        name: str,
        call: OperatorCall,
        shape: tuple[int, ...],
        dtype: str = "float32",
        *,
        exact: bool = False,
        each_image: bool = False,
    ) -> FloatValue:
        """Add a FloatOperator layer and return its value.

        Args:
            name: the ONNX tensor that the layer makes, or a part of it.
            call: the operator and its operands.
            shape: of the output, without the batch.
            dtype: of the output.
            exact: whether the value gets `name` itself, rather than `name` with the operator's name behind it.
            each_image: whether the operator runs image by image.
        """
        output = self.unique_name(name if exact else f"{name}.{call.op_type.lower()}")
        inputs = tuple(x.value for x in call.operands if isinstance(x, FloatValue))
        frozen = tuple(None if isinstance(x, FloatValue) else x for x in call.operands)
        layer = FloatOperator(
            output, inputs, output, call.op_type, call.opset, call.attributes, frozen, call.output_index, each_image
        )
        cache = call.op_type.endswith(CACHE) and dtype == "float32"
        self.add_layer(layer, ValueSpec(output, "float", shape, dtype, cache=cache))
        return FloatValue(output, shape, dtype)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    def finish(self, inputs: tuple[str, ...], outputs: tuple[str, ...], metadata: Mapping[str, str]) -> Network:
        """Return the network, without layers that no output depends on."""
        needed, layers = set(outputs), []
        for layer in reversed(self.layers):
            if layer.output in needed:
                layers.append(layer)
                needed.update(layer.inputs)
        layers = [self.stored.resolve_orders(layer) for layer in reversed(layers)]
        values = {name: spec for name, spec in self.values.items() if name in needed or name in inputs}
        used = [name for layer in layers for name in layer.tensor_names()]
        tensors = {name: self.stored.tensors[name] for name in used}
        return Network(self.name, inputs, outputs, tuple(layers), values, tensors, dict(metadata))

    def copy_as(self, real: FloatValue, output: str, label: str) -> FloatValue:
        """Add a copy of a value under another name: a Reshape to its own shape."""
        spec = self.values[real.value]
        self.add_layer(Reshape(label, (real.value,), output), replace(spec, name=output, shape=real.shape))
        return FloatValue(output, real.shape, real.dtype)

    def add_max_pool(self, value: str, window: Window, tensor: str) -> str:
        """Add a MaxPool of a value and return the name of its output."""
        spec = self.values[value]
        name = self.integer_name(tensor)
        shape = window.output_shape(spec.channels, spec.shape)
        return self.add_layer(
            MaxPool(tensor, (value,), name, window), replace(spec, name=name, shape=shape), self.ranges.get(value)
        )


MAX_ELEMENTS = 1 << 26
"""Limit of the elements of a value, for one image."""


def check_size(spec: ValueSpec) -> None:
    """Refuse a value that is larger than those of any sensible network."""
    if math.prod(spec.shape) > MAX_ELEMENTS:
        found = f"it has the shape [N, {', '.join(map(str, spec.shape))}]"
        raise ModelError(f"Importing the tensor {spec.name!r}", found, f"The limit is {MAX_ELEMENTS} elements for one image")


def _repeat_per_element(constant: Floats, area: int) -> Floats:
    """Return constants per channel as constants per element of the flattened tensor."""
    return constant if constant.ndim == 0 else np.repeat(constant, area)


def _broadcastable(constant: Floats, shape: tuple[int, ...]) -> Array:
    """Return a constant per channel in a shape that broadcasts in ONNX order."""
    return constant if constant.ndim == 0 or len(shape) == 1 else constant.reshape(-1, *[1] * (len(shape) - 1))
