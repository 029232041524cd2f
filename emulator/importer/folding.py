"""Constant folding: initializers, and every node that reads only constants.

DequantizeLinear keeps the integers of the file beside the real numbers: they are what a memory stores. Transpose and
Reshape carry them along.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import numpy as np
import onnx

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.constant_recipe import (
    extend_recipe,
    find_frozen,
    find_sign_recipe,
    integer_recipe,
    is_stored,
    propagate_quantization,
    undo_dequantization,
)
from weakcell.emulator.importer.constant_recipe import integer_encoding as integer_encoding
from weakcell.emulator.importer.parse import Graph
from weakcell.emulator.importer.symbols import Array, Constant, Node, QuantizedConstant, Recipe
from weakcell.emulator.importer.unsupported import unsupported
from weakcell.emulator.ir.values import Encoding
from weakcell.memmodels.errors import ModelError

MAX_BYTES = 1 << 30
"""Limit of a folded constant. Operators also refuse to make large results of small inputs (`claim`)."""


def read_initializer(graph: Graph, name: str, shared: Container[str] = ()) -> Constant:
    """Read the constant of an initializer from the file.

    Args:
        graph: the file.
        name: the initializer.
        shared: names of integers that count as shared (`Recipe.kind`).
    """
    try:
        array = np.asarray(graph.initializers[name].numpy())
    except Exception as e:
        raise ModelError(
            f"Reading the model {graph.name}", f"the tensor {name!r} cannot be read ({e})", "Export the model again"
        ) from None
    return Constant(array, name, recipe=integer_recipe(array, name, "shared" if name in shared else "file"))


def fold(node: Node, inputs: list[Constant | None], output_index: int = 0, shared: Container[str] = ()) -> Constant:
    """Return the constant that a node with constant inputs computes.

    Args:
        node: the operator.
        inputs: its inputs; None where one is left out.
        output_index: the output that is meant.
        shared: names of integers that count as shared (`Recipe.kind`).
    """
    result = _fold(node, inputs, output_index, shared)
    result = replace(result, frozen=find_frozen(node, inputs, result.recipe))
    if result.recipe is None or not result.recipe.is_shared:
        return result
    return replace(result, given=result.array, quantized=None)


def _fold(node: Node, inputs: list[Constant | None], output_index: int, shared: Container[str]) -> Constant:
    first = next((x for x in inputs if x is not None), None)
    origin = first.origin if first is not None and first.origin else node.outputs[0]
    if node.op_type == "DequantizeLinear" and node.domain == "" and inputs[1] is not None:
        dequantized = _dequantize(node, inputs, origin)
        computed = inputs[0] is not None and inputs[0].recipe is not None and not is_stored(inputs[0])
        return replace(dequantized, given=dequantized.array, quantized=None) if computed else dequantized
    if node.op_type == "QuantizeLinear" and node.domain == "":
        check_weight_scale(node, _required(node, inputs, 1), divides=True)
        inputs = _with_output_type(node, inputs)
    if node.domain or node.op_type not in onnx_ops.OPERATORS:
        raise unsupported(node)
    attributes = {key: np.asarray(v) if isinstance(v, np.ndarray) else v for key, v in node.attributes.items()}
    try:
        arrays = [None if x is None else x.array for x in inputs]
        array = onnx_ops.apply_all(node.op_type, node.opset, attributes, arrays, max(output_index + 1, len(node.outputs)))[
            output_index
        ]
    except MemoryError as e:
        raise ModelError(f"Folding {node}", str(e), "Export a smaller model") from None
    except (ValueError, IndexError, TypeError, KeyError, OverflowError) as e:
        raise ModelError(f"Folding {node}", f"its constant inputs do not fit ({e})", "Export the model again") from None
    if array.nbytes > MAX_BYTES:
        raise ModelError(f"Folding {node}", f"the result has {array.nbytes} bytes", f"The limit is {MAX_BYTES} bytes")
    quantized = propagate_quantization(node, inputs, array, output_index)
    signed = node.op_type == "Sign" or any(x is not None and x.signed for x in inputs)
    limits = _limits(node, inputs, array)
    kept = None if _moves_integers(node, inputs, quantized) else array
    if node.op_type == "Constant":
        recipe = integer_recipe(array, origin, "shared" if origin in shared else "file")
    else:
        recipe = _recipe(node, inputs, array, limits, origin, output_index)
    return Constant(kept, origin, quantized, signed, limits, recipe)


def _moves_integers(node: Node, inputs: list[Constant | None], quantized: QuantizedConstant | None) -> bool:
    """Return whether a node only moves a dequantized constant, so that its integers are enough to keep."""
    if quantized is None or node.op_type not in ("Identity", "Transpose", "Reshape"):
        return False
    return inputs[0] is not None and inputs[0].given is None


def _recipe(
    node: Node, inputs: list[Constant | None], array: Array, limits: tuple[int, int] | None, origin: str, output_index: int
) -> Recipe | None:
    """Return how the folded constant is computed from stored integers.

    Those of the file, or those it quantizes to. Integers that are quantized again from integers of the file are computed from
    the first ones: a flip of these changes both.
    """
    first = inputs[0] if inputs else None
    source = None if first is None else first.recipe
    shared = any(x is not None and x.recipe is not None and x.recipe.is_shared for x in inputs)
    if node.op_type in ("QuantizeLinear", "Clip") and array.dtype.kind != "f" and not shared:
        if first is not None and source is not None and source.kind == "file" and not is_stored(first):
            again = undo_dequantization(node, inputs, array) if node.op_type == "QuantizeLinear" else None
            return extend_recipe(node, inputs, None, output_index, at=0) if again is None else again
        encoding = integer_encoding(array.dtype)
        kind = "quantized" if source is None else source.kind
        return None if encoding is None else integer_recipe(array, origin, kind, narrow_encoding(encoding, limits))
    if node.op_type in ("Sign", "Where") and array.dtype == np.float32 and not shared:
        return find_sign_recipe(array, origin)
    return extend_recipe(node, inputs, None, output_index)


def _required(node: Node, inputs: list[Constant | None], output_index: int) -> Array:
    given = inputs[output_index] if output_index < len(inputs) else None
    if given is None:
        raise ModelError(f"Importing {node}", f"input {output_index} is missing", "Export the model again")
    return given.array


def _with_output_type(node: Node, inputs: list[Constant | None]) -> list[Constant | None]:
    """Add the zero point that `output_dtype` implies to QuantizeLinear's inputs."""
    to = int(node.attributes.get("output_dtype", 0))
    if to and len(inputs) < 3:
        scale = _required(node, inputs, 1)
        return [*inputs, Constant(np.zeros(scale.shape, onnx.helper.tensor_dtype_to_np_dtype(to)), "")]
    return inputs


# ── quantization parameters ─────────────────────────────────────────────────────────────────────────


def check_scale(node: Node, scale: Array) -> None:
    """Refuse a scale of activations that is not float, finite and positive."""
    _check(node, scale, scale > 0, "Every scale of activations must be finite and greater than 0; export the model again")


def check_weight_scale(node: Node, scale: Array, divides: bool = False) -> None:
    """Refuse a scale of weights that is not float and finite.

    It may be negative, and 0 unless the weight is divided by it: onnxruntime's symmetric block quantizers write negative
    scales, and 0 for a block of zeros.
    """
    if divides:
        _check(node, scale, scale != 0, "Every scale that weights are divided by must be finite and not 0; export the model again")
    else:
        _check(node, scale, np.ones(scale.shape, np.bool_), "Every scale of weights must be finite; export the model again")


def _check(node: Node, scale: Array, allowed: Array, do: str) -> None:
    if scale.dtype.kind != "f":
        raise ModelError(f"Importing {node}", "the scale is not a float", do)
    bad = scale[~(np.isfinite(scale) & allowed)]
    if bad.size:
        raise ModelError(f"Importing {node}", f"the scale is {bad.reshape(-1)[0]}", do)


def check_zero_point(node: Node, zero_point: Array, scale: Array) -> None:
    """Refuse a zero point with neither one element nor as many as its scale."""
    if zero_point.size != scale.size and zero_point.size != 1 and scale.size != 1:
        found = f"the scale has {scale.size} elements and the zero point {zero_point.size}"
        raise ModelError(f"Importing {node}", found, "They must be equally long; export the model again")


def _limits(node: Node, inputs: list[Constant | None], array: Array) -> tuple[int, int] | None:
    """Return the limits of a Clip of integers, also behind moving operators."""
    if node.op_type in ("Identity", "Reshape", "Transpose") and inputs and inputs[0] is not None:
        return inputs[0].limits
    if node.op_type != "Clip" or array.dtype.kind not in "iu":
        return None
    info, given = np.iinfo(array.dtype), [None if x is None else int(x.array.reshape(())) for x in (*inputs[1:3], None, None)[:2]]
    low, high = given
    return info.min if low is None else low, info.max if high is None else high


def narrow_encoding(encoding: Encoding, limits: tuple[int, int] | None) -> Encoding:
    """Return the narrowest encoding of the same kind that holds the limits."""
    if limits is None or encoding.bits > 16:
        return encoding
    low, high = limits
    bits = max(high, 1).bit_length() if encoding.kind == "unsigned" else max(high.bit_length(), (-low - 1).bit_length()) + 1
    return Encoding(encoding.kind, min(max(bits, 1 if encoding.kind == "unsigned" else 2), encoding.bits))


def _dequantize(node: Node, inputs: list[Constant | None], origin: str) -> Constant:
    """Return a dequantized constant with the integers behind it."""
    codes, scale = _required(node, inputs, 0), _required(node, inputs, 1)
    check_weight_scale(node, scale)
    encoding = integer_encoding(codes.dtype)
    if encoding is None:
        raise ModelError(f"Importing {node}", f"it dequantizes {codes.dtype}", "2- to 32-bit integers are supported")
    integers = codes.astype(encoding.dtype, copy=False)
    encoding = narrow_encoding(encoding, inputs[0].limits if inputs[0] is not None else None)
    given = inputs[2] if len(inputs) > 2 else None
    zero = np.zeros(scale.shape, np.int32) if given is None else given.array.astype(np.int32)
    check_zero_point(node, zero, scale)
    axis, block = int(node.attributes.get("axis", 1)), int(node.attributes.get("block_size", 0))
    if block and scale.ndim == codes.ndim > 0:
        axis = axis % codes.ndim
        stored = QuantizedConstant(integers, encoding, scale.astype(np.float32), zero, axis, block)
        blocked = _dequantize_blocks(node, stored, origin)
        return replace(blocked, recipe=extend_recipe(node, inputs, encoding))
    if scale.ndim == codes.ndim > 1 and scale.size > 1:  # QLinearMatMul's [1, N]: the axis is where its length is not 1
        long = [i for i, n in enumerate(scale.shape) if n > 1]
        if len(long) == 1 and scale.shape[long[0]] == codes.shape[long[0]]:
            scale, zero, axis = scale.reshape(-1), zero.reshape(-1), long[0]
    if zero.size != scale.size:
        scale, zero = (np.ascontiguousarray(x) for x in np.broadcast_arrays(scale.reshape(-1), zero.reshape(-1)))
    if scale.size == 1:
        scale, zero, axis = scale.reshape(()), zero.reshape(()), 0
    else:
        axis = axis % max(codes.ndim, 1)
        if scale.ndim != 1 or codes.ndim == 0 or scale.size != codes.shape[axis]:
            found = f"the scale has shape {list(scale.shape)} and the codes {list(codes.shape)} (axis {axis})"
            raise ModelError(f"Importing {node}", found, "One scale per channel is needed; export the model again")
    if encoding.bits == 32 and np.any(zero != 0):
        raise ModelError(f"Importing {node}", "an int32 tensor has a zero point other than 0", "Export the model again")
    quantized = QuantizedConstant(integers, encoding, scale.astype(np.float32), zero, axis)
    return Constant(None, origin, quantized, recipe=extend_recipe(node, inputs, encoding))


def _dequantize_blocks(node: Node, quantized: QuantizedConstant, origin: str) -> Constant:
    """Dequantize codes with one scale for every `block` of them along the axis."""
    codes, scale, zero, axis, block = quantized.codes, quantized.scale, quantized.zero_point, quantized.axis, quantized.block
    wanted = [-(-n // block) if i == axis else n for i, n in enumerate(codes.shape)]
    if block < 1 or list(scale.shape) != wanted:
        found = f"its scale has shape {list(scale.shape)}, and blocks of {block} in {list(codes.shape)} need {wanted}"
        raise ModelError(f"Importing {node}", found, "Export the model again")
    zero = np.broadcast_to(zero.reshape(scale.shape) if zero.size == scale.size else zero.reshape([1] * scale.ndim), scale.shape)
    quantized = replace(quantized, zero_point=zero)
    return Constant(None, origin, quantized)
