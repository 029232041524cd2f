"""Shapes, pads, pools and Resize.

Operators that move elements or choose among them.

Resize and Upsample of every opset are lowered as one Resize of the axes behind the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import BatchPlace, NetworkBuilder
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.fixed_batch import batch_place, place_behind, place_in_reshape
from weakcell.emulator.importer.integer_ops import lower_move
from weakcell.emulator.importer.symbols import (
    NO_PADS,
    Array,
    Codes,
    Constant,
    FloatValue,
    Node,
    PendingComparison,
    PendingMean,
    PendingQuantized,
    PendingSum,
    Symbol,
    scalar,
)
from weakcell.emulator.importer.windows import padded_shape, read_window
from weakcell.emulator.ir.layers import Reshape
from weakcell.emulator.ir.values import ValueSpec, Window
from weakcell.emulator.onnx_ops.interpolation import passes_of
from weakcell.memmodels.errors import ModelError

# ── shapes ──────────────────────────────────────────────────────────────────────────────────────────


SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def lower_shape(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Shape or Size to a constant, with a batch of 1."""
    full, name = builder.onnx_shape(node.input(0)), node.outputs[0]
    if (batch := builder.batch or 1) > 1:
        place = batch_place(builder, node.input(0))
        whole = None if place is None else _sizes(node, [n * batch if i == place.axis else n for i, n in enumerate(full)])
        builder.whole_batch[name] = whole
    return Constant(_sizes(node, full), name)


def _sizes(node: Node, shape: Sequence[int]) -> Array:
    """Return what Shape or Size says of a tensor."""
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    start, end = int(node.attributes.get("start", 0)), node.attributes.get("end")
    return np.array(shape[start:end], np.int64)


def lower_reshape(builder: NetworkBuilder, node: Node, batch: int | None) -> Symbol:
    """Lower Reshape, Flatten, Squeeze or Unsqueeze.

    `batch` is the graph's fixed batch, if any.
    """
    full = builder.onnx_shape(node.input(0))
    place = batch_place(builder, node.input(0)) if batch is not None and batch > 1 else None
    shape, moved = _new_shape(builder, node, full, batch or 1, place)
    if moved is not None:
        builder.batch_places[node.outputs[0]] = moved
    if math.prod(shape) != math.prod(full):
        found = f"it turns {list(full)}, the shape for one image, into {list(shape)}"
        raise ModelError(f"Importing {node}", found, "Both must have as many elements; export the model again")
    if shape[:1] == (1,):
        return reshape_symbol(builder, node, shape[1:])
    builder.unbatched.add(node.outputs[0])
    return reshape_symbol(builder, node, shape)


def _new_shape(
    builder: NetworkBuilder, node: Node, shape: tuple[int, ...], batch: int, place: BatchPlace | None
) -> tuple[tuple[int, ...], BatchPlace | None]:
    """Return the ONNX shape that a shape operator makes of that of one image, and where the batch is in it, if that is known."""
    rank = len(shape)
    if node.op_type == "Flatten":
        axis = int(node.attributes.get("axis", 1))
        axis += rank if axis < 0 else 0
        return (math.prod(shape[:axis]), math.prod(shape[axis:])), place and place_behind(node, place, shape, ())
    if node.op_type == "Reshape":
        given = builder.constant(node, 1)
        numbers = node.attributes.get("shape", []) if given is None else given.array
        if (whole := builder.whole_batch.get(node.input(1))) is not None:
            numbers = whole
        elif node.input(1) in builder.whole_batch and -1 in numbers:
            found = f"its numbers follow from the shape of a tensor in which the place of the batch of {batch} cannot be told"
            raise ModelError(f"Importing {node}", found, "Export the model with a batch of 1")
        target = [int(n) for n in numbers]
        return _target(node, shape, target, batch, place)
    given = builder.constant(node, 1)
    axes = onnx_ops.axes_of([None, None if given is None else given.array], node.attributes)
    if node.op_type == "Squeeze":
        out = {a % rank for a in axes} if axes is not None else {i for i, n in enumerate(shape) if n == 1 and i + batch > 1}
        if any(shape[a] != 1 for a in out):
            raise ModelError(
                f"Importing {node}", f"it removes the axes {sorted(out)} of {list(shape)}", "Remove axes of size 1 only"
            )
        squeezed = None if place is None or place.axis in out else place_behind(node, place, shape, out)
        return tuple(n for i, n in enumerate(shape) if i not in out), squeezed
    new = {a % (rank + len(axes or [])) for a in axes or []}
    if len(new) < len(axes or []):
        raise ModelError(f"Importing {node}", f"it adds the axes {axes}, one of them twice", "Export the model again")
    sizes = iter(shape)
    made = tuple(1 if i in new else next(sizes) for i in range(rank + len(new)))
    return made, place and place_behind(node, place, shape, new)


def _target(
    node: Node, shape: tuple[int, ...], target: list[int], batch: int, place: BatchPlace | None
) -> tuple[tuple[int, ...], BatchPlace | None]:
    """Return the shape of one image that a Reshape makes, with its 0 and -1 resolved, and where the batch is in it.

    If the file fixes a larger batch, one of the numbers is a multiple of it.
    """
    whole = [batch, *shape[1:]] if shape[:1] == (1,) else list(shape)
    if place is not None:
        whole = [n * batch if i == place.axis else n for i, n in enumerate(shape)]
    sizes = (
        target
        if node.attributes.get("allowzero", 0)
        else [whole[i] if n == 0 and i < len(whole) else n for i, n in enumerate(target)]
    )
    total, known = math.prod(shape) * batch, math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known > 0 and total % known == 0:
        sizes = [total // known if n == -1 else n for n in sizes]
    if batch > 1 and math.prod(sizes) == total:
        axes = [i for i, n in enumerate(sizes) if n % batch == 0]
        moved = None if place is None else place_in_reshape(sizes, place, shape, batch)
        if place is None and len(axes) > 1:
            found = f"it makes {sizes}, and which of these numbers has the batch of {batch} cannot be told"
            raise ModelError(f"Importing {node}", found, "Export the model with a batch of 1")
        if moved is not None or (place is None and axes):
            axis = axes[0] if moved is None else moved.axis
            return tuple(n // batch if i == axis else n for i, n in enumerate(sizes)), moved
    if all(n > 0 for n in sizes) and math.prod(sizes) == math.prod(shape):
        return tuple(sizes), None
    found = f"it turns {whole} into {target}"
    raise ModelError(f"Importing {node}", found, "Both must have as many elements; export the model with a dynamic batch")


def reshape_symbol(builder: NetworkBuilder, node: Node, shape: tuple[int, ...]) -> Symbol:
    """Return the node's first input under another shape.

    Flattening codes moves nothing yet: only the symbol gets the shape.
    """
    name = node.input(0)
    symbol = builder.symbol(name)
    assert not isinstance(symbol, Constant)
    if symbol.shape == shape:
        return symbol
    if isinstance(symbol, PendingMean):
        return replace(symbol, shape=shape)
    if isinstance(symbol, PendingQuantized | Codes):
        flat = len(shape) == 1 or shape == builder.values[symbol.value].shape
        unpadded = not isinstance(symbol, PendingQuantized) or symbol.pads == NO_PADS
        if isinstance(symbol, PendingQuantized) and symbol.pool is not None:
            flat = False
        if flat and unpadded:
            return replace(symbol, shape=shape)
        plain = isinstance(symbol, Codes) or (symbol.scale.ndim == 0 and all(s.constant.ndim == 0 for s in symbol.steps))
        has_pool = isinstance(symbol, PendingQuantized) and symbol.pool is not None
        if len(shape) in (2, 3) and plain and unpadded and not has_pool:
            value = _add_reshape(builder, node, symbol.value, shape)
            return replace(symbol, value=value, shape=shape)
    real = builder.as_typed(name)
    output = builder.unique_name(node.outputs[0])
    builder.add_layer(Reshape(node.name, (real.value,), output), ValueSpec(output, "float", shape, real.dtype))
    return FloatValue(output, shape, real.dtype)


def reshape_in_place(builder: NetworkBuilder, name: str, shape: tuple[int, ...]) -> Symbol:
    """Give a tensor a symbol of another shape, under its own name."""
    symbol = reshape_symbol(builder, Node("Reshape", "", 13, f"{name}.axes", (name,), (f"{name}.axes",), {}), shape)
    builder.symbols[name] = symbol
    for key in (name, f"{name}:typed"):
        builder.float_values.pop(key, None)  # they have the old shape
    return symbol


def _add_reshape(builder: NetworkBuilder, node: Node, value: str, shape: tuple[int, ...]) -> str:
    name, spec = builder.integer_name(node.outputs[0]), builder.values[value]
    layer = Reshape(node.name, (value,), name)
    return builder.add_layer(layer, replace(spec, name=name, shape=shape), builder.ranges.get(value))


def lower_identity(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Identity, or Dropout in evaluation mode."""
    return builder.symbols[node.input(0)]


def lower_cast(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Cast: comparisons get the levels 0 and 1, integers scale 1, floats stay."""
    symbol, to = builder.symbols[node.input(0)], int(node.attributes["to"])
    if to == 1:
        if isinstance(symbol, PendingComparison) and symbol.levels is None:
            return replace(symbol, levels=(0.0, 1.0))
        if isinstance(symbol, Codes) and builder.values[symbol.value].zero_point == 0:
            spec = builder.values[symbol.value]
            if np.all(spec.scale == 1):
                return PendingQuantized(symbol.value, symbol.shape, scalar(1))
        if isinstance(symbol, PendingQuantized | PendingSum | PendingMean | PendingComparison) or (
            isinstance(symbol, FloatValue) and symbol.dtype == "float32"
        ):
            return symbol
    return lower_float(builder, node)


# ── pads and pools ──────────────────────────────────────────────────────────────────────────────────


def lower_pad(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Pad.

    Zero padding of a quantized image is pending until its convolution. Any other padding moves codes.
    """
    symbol = builder.symbol(node.input(0))
    mode = node.attributes.get("mode", "constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if isinstance(symbol, PendingQuantized) and len(symbol.shape) in (2, 3) and mode == "constant":
        given = [builder.constant(node, i) for i in range(1, len(node.inputs))]
        arrays = [None, *(None if c is None else c.array for c in given)]
        pads, value = onnx_ops.pad_amounts(arrays, node.attributes, len(symbol.shape) + 1)
        top, bottom = pads[2] if len(symbol.shape) == 3 else (0, 0)
        left, right = pads[-1]
        plain = not symbol.steps and symbol.pool is None and builder.values[symbol.value].shape == symbol.shape
        if value == 0.0 and pads[0] == pads[1] == (0, 0) and min(top, bottom, left, right) >= 0 and plain:
            t, le, b, r = symbol.pads
            shape = padded_shape(symbol.shape, (top, left, bottom, right))
            return replace(symbol, pads=(t + top, le + left, b + bottom, r + right), shape=shape)
    return lower_move(builder, node)


def lower_max_pool(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower MaxPool or GlobalMaxPool.

    A maximum commutes with every chain of steps that rises. Where a chain falls in a channel, the pool is pending.
    """
    symbol = builder.symbol(node.input(0))
    several = len([n for n in node.outputs if n]) > 1
    plain = isinstance(symbol, Codes) and builder.values[symbol.value].shape == symbol.shape and len(symbol.shape) in (2, 3)
    if several or not (plain or (isinstance(symbol, PendingQuantized) and _is_plain_image(builder, symbol))):
        return lower_float(builder, node)
    assert isinstance(symbol, PendingQuantized | Codes)
    window = _pool_window(node, symbol.shape)
    shape = window.output_shape(symbol.shape[0], symbol.shape)
    if isinstance(symbol, Codes):
        return Codes(builder.add_max_pool(symbol.value, window, node.outputs[0]), shape)
    rising = np.all(symbol.scale > 0) and all(s.op not in ("mul", "div") or bool(np.all(s.constant >= 0)) for s in symbol.steps)
    if not rising:
        return replace(symbol, pool=window, shape=shape)
    return replace(symbol, value=builder.add_max_pool(symbol.value, window, node.outputs[0]), shape=shape)


def _pool_window(node: Node, shape: tuple[int, ...]) -> Window:
    if node.op_type.startswith("Global"):
        return _global_window(shape)
    kernel = node.attributes.get("kernel_shape", [])
    if len(kernel) != len(shape) - 1:
        found = f"its kernel is {list(kernel)} and its input has {len(shape) - 1} axes"
        raise ModelError(f"Importing {node}", found, "A pool needs as many axes as its image")
    return read_window(node, shape, tuple(int(n) for n in kernel))


def _global_window(shape: tuple[int, ...]) -> Window:
    """Return the window that covers a whole image (C, H, W) or signal (C, L)."""
    size = (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])
    return Window(size, size)


def _is_plain_image(builder: NetworkBuilder, pending: PendingQuantized) -> bool:
    """Return whether a tensor is an image or a signal with nothing pending but steps."""
    plain = pending.pool is None and pending.pads == NO_PADS
    return plain and len(pending.shape) in (2, 3) and builder.values[pending.value].shape == pending.shape


def lower_mean(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower AveragePool, GlobalAveragePool or ReduceMean.

    Pending until a QuantizeLinear follows.
    """
    symbol = builder.symbol(node.input(0))
    if not isinstance(symbol, PendingQuantized) or not _is_plain_image(builder, symbol) or symbol.steps or symbol.scale.ndim:
        return lower_float(builder, node)
    if builder.values[symbol.value].kind != "codes":
        return lower_float(builder, node)
    channels, rank = symbol.shape[0], len(symbol.shape)
    value_range, zero = builder.ranges[symbol.value], symbol.zero_point
    kernel = node.attributes.get("kernel_shape", symbol.shape[1:]) if node.op_type == "AveragePool" else symbol.shape[1:]
    if max(abs(value_range.low - zero), abs(value_range.high - zero)) * math.prod(kernel) >= 1 << 31:
        return lower_float(builder, node)  # a sum over a window may leave int32
    whole, pooled = _global_window(symbol.shape), (channels, *[1] * (rank - 1))
    if node.op_type == "GlobalAveragePool":
        return PendingMean(symbol, whole, False, pooled, pooled)
    if node.op_type == "ReduceMean":
        given = builder.constant(node, 1)
        axes = onnx_ops.axes_of([None, None if given is None else given.array], node.attributes)
        if axes is None or sorted(a % (rank + 1) for a in axes) != list(range(2, rank + 1)):
            return lower_float(builder, node)
        return PendingMean(symbol, whole, False, pooled if node.attributes.get("keepdims", 1) else (channels,), pooled)
    window = _pool_window(node, symbol.shape)
    shape = window.output_shape(channels, symbol.shape)
    return PendingMean(symbol, window, bool(node.attributes.get("count_include_pad", 0)), shape, shape)


# ── Resize ────────────────────────────────────────────────────────────────────────────────────────────


def lower_resize(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower Resize: the nearest element is moved as a code, interpolation is float32.

    The batch stays as it is, whatever `sizes` says.
    """
    plain = _drop_batch_axis(builder, node)
    _check(builder, plain)
    nearest = onnx_ops.text(plain.attributes, "mode", "nearest") == "nearest"
    return lower_move(builder, plain) if nearest and not _crops_input(plain) else lower_float(builder, plain)


def _check(builder: NetworkBuilder, node: Node) -> None:
    """Refuse scales or sizes that do not fit."""
    source, *constants = (builder.symbols.get(name) for name in node.inputs)
    if isinstance(source, Constant | None) or not all(part is None or isinstance(part, Constant) for part in constants):
        return
    operands = [None, *(part.array if isinstance(part, Constant) else None for part in constants)]
    try:
        passes_of((1, *source.shape), operands, node.attributes)
    except (ValueError, IndexError, TypeError, KeyError, MemoryError) as e:
        raise ModelError(f"Importing {node}", f"its inputs do not fit ({e})", "Export the model again") from None


def _crops_input(node: Node) -> bool:
    """Return whether the node crops, with a value of its own outside the input."""
    return onnx_ops.text(node.attributes, "coordinate_transformation_mode", "") == "tf_crop_and_resize"


def _drop_batch_axis(builder: NetworkBuilder, node: Node) -> Node:
    """Return the node in the form of opset 18, with all axes but the first named."""
    attributes, old = dict(node.attributes), node.op_type == "Upsample" or node.opset < 11
    index = 1 if old else 3 if node.input(3) else 2
    source, symbol = builder.symbols.get(node.inputs[0]), builder.symbols.get(node.input(index))
    if "scales" in attributes:
        symbol = Constant(np.asarray(attributes.pop("scales"), np.float32), "")
    if (
        source is None
        or isinstance(source, Constant)
        or not isinstance(symbol, Constant)
        or "axes" in attributes
        or _crops_input(node)
    ):
        return node
    given = symbol.array
    if given.size != len(source.shape) + 1 or (index != 3 and given[0] != 1):
        return node
    if old:
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "simple"}
    name = builder.unique_name(f"{node.outputs[0]}.{'sizes' if index == 3 else 'scales'}")
    builder.symbols[name] = Constant(given[1:], symbol.origin)
    inputs = (node.inputs[0], "", "", name) if index == 3 else (node.inputs[0], "", name)
    attributes["axes"] = list(range(1, given.size))
    return replace(node, op_type="Resize", opset=max(node.opset, 18), inputs=inputs, attributes=attributes)
