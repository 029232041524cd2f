"""What is known before any data: initializers and every node that reads only constants, computed by our own operators.

Folding stops at DequantizeLinear: its result keeps the integers of the file beside the reals they mean, because those integers
are what a memory stores. Transpose and Reshape carry them along.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from emulator import floatops
from emulator.importer.read import Graph
from emulator.importer.symbols import Array, Constant, Node, Quantized
from emulator.network import Encoding
from memmodels.errors import ModelError

MAX_BYTES = 1 << 30
"""No folded constant is larger than the largest sensible network; operators refuse to make much out of little (`claim`)."""


def initializer(graph: Graph, name: str) -> Constant:
    """The constant of an initializer, read from the file now."""
    try:
        array = np.asarray(graph.initializers[name].numpy())
    except Exception as e:
        raise ModelError(
            f"Reading the model {graph.name}", f"the tensor {name!r} cannot be read ({e})", "Export the model again"
        ) from None
    return Constant(array, name)


def fold(node: Node, inputs: list[Constant | None]) -> Constant:
    """The constant that a node with constant inputs makes."""
    first = next((x for x in inputs if x is not None), None)
    origin = first.origin if first is not None and first.origin else node.outputs[0]
    if node.op_type == "DequantizeLinear" and node.domain == "" and inputs[1] is not None:
        return _dequantize(node, inputs, origin)
    if node.op_type == "QuantizeLinear" and node.domain == "":
        check_weight_scale(node, _required(node, inputs, 1), divides=True)
        inputs = _with_output_type(node, inputs)
    if node.domain or node.op_type not in floatops.OPERATORS:
        raise unsupported(node)
    attributes = {key: np.asarray(v) if isinstance(v, np.ndarray) else v for key, v in node.attributes.items()}
    try:
        array = floatops.apply(node.op_type, node.opset, attributes, [None if x is None else x.array for x in inputs])
    except MemoryError as e:
        raise ModelError(f"Folding {node}", str(e), "Export a smaller model") from None
    except (ValueError, IndexError, TypeError, KeyError, OverflowError) as e:
        raise ModelError(f"Folding {node}", f"its constant inputs do not fit ({e})", "Export the model again") from None
    if array.nbytes > MAX_BYTES:
        raise ModelError(f"Folding {node}", f"the result has {array.nbytes} bytes", f"The limit is {MAX_BYTES} bytes")
    quantized = None
    if first is not None and first.quantized is not None:
        quantized = _carried(node, first.quantized, array)
    signed = node.op_type == "Sign" or any(x is not None and x.signed for x in inputs)
    return Constant(array, origin, quantized, signed, _limits(node, inputs, array))


def unsupported(node: Node) -> ModelError:
    """The error for an operator that nothing here knows."""
    known = ", ".join(sorted({*floatops.OPERATORS, "DequantizeLinear"}))
    return ModelError(f"Importing {node}", f"the operator {node.op_type} is not supported", f"Supported are {known}")


def _required(node: Node, inputs: list[Constant | None], place: int) -> Array:
    given = inputs[place] if place < len(inputs) else None
    if given is None:
        raise ModelError(f"Importing {node}", f"input {place} is missing", "Export the model again")
    return given.array


def _with_output_type(node: Node, inputs: list[Constant | None]) -> list[Constant | None]:
    """QuantizeLinear's inputs with the zero point that `output_dtype` stands for."""
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
    """Refuse a scale of weights that is not float and finite. It may be negative, and 0 unless the weight is divided by it.

    onnxruntime's symmetric block quantizers write negative scales, and 0 for a block of zeros.
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
    """A zero point has as many elements as its scale, or one of them has only one."""
    if zero_point.size != scale.size and zero_point.size != 1 and scale.size != 1:
        found = f"the scale has {scale.size} elements and the zero point {zero_point.size}"
        raise ModelError(f"Importing {node}", found, "They must be equally long; export the model again")


def encoding_of(dtype: Any) -> Encoding | None:
    """How an integer type is stored; None for what is no integer of 2 to 32 bits."""
    names = {"int": "signed", "uint": "unsigned"}
    text = str(np.dtype(dtype))
    stem = text.rstrip("0123456789")
    if stem not in names or not 2 <= int(text[len(stem) :]) <= 32:
        return None
    return Encoding("signed" if stem == "int" else "unsigned", int(text[len(stem) :]))


def _limits(node: Node, inputs: list[Constant | None], array: Array) -> tuple[int, int] | None:
    """The limits of a Clip of integers, through operators that only move elements."""
    if node.op_type in ("Identity", "Reshape", "Transpose") and inputs and inputs[0] is not None:
        return inputs[0].limits
    if node.op_type != "Clip" or array.dtype.kind not in "iu":
        return None
    info, given = np.iinfo(array.dtype), [None if x is None else int(x.array.reshape(())) for x in (*inputs[1:3], None, None)[:2]]
    low, high = given
    return info.min if low is None else low, info.max if high is None else high


def narrowed(encoding: Encoding, limits: tuple[int, int] | None) -> Encoding:
    """The narrowest encoding of the same kind that holds the limits."""
    if limits is None or encoding.bits > 16:
        return encoding
    low, high = limits
    bits = max(high, 1).bit_length() if encoding.kind == "unsigned" else max(high.bit_length(), (-low - 1).bit_length()) + 1
    return Encoding(encoding.kind, min(max(bits, 1 if encoding.kind == "unsigned" else 2), encoding.bits))


def _dequantize(node: Node, inputs: list[Constant | None], origin: str) -> Constant:
    """A dequantized constant, with the integers it comes from."""
    codes, scale = _required(node, inputs, 0), _required(node, inputs, 1)
    check_weight_scale(node, scale)
    encoding = encoding_of(codes.dtype)
    if encoding is None:
        raise ModelError(f"Importing {node}", f"it dequantizes {codes.dtype}", "2- to 32-bit integers are supported")
    encoding = narrowed(encoding, inputs[0].limits if inputs[0] is not None else None)
    given = inputs[2] if len(inputs) > 2 else None
    zero = np.zeros(scale.shape, np.int32) if given is None else given.array.astype(np.int32)
    check_zero_point(node, zero, scale)
    axis, block = int(node.attributes.get("axis", 1)), int(node.attributes.get("block_size", 0))
    if block and scale.ndim == codes.ndim > 0:
        return _dequantize_blocks(node, codes, encoding, scale, zero, axis % codes.ndim, block, origin)
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
    quantized = Quantized(codes.astype(np.int32), encoding, scale.astype(np.float32), zero, axis)
    return Constant(real_values(quantized), origin, quantized)


def _dequantize_blocks(
    node: Node, codes: Array, encoding: Encoding, scale: Array, zero: Array, axis: int, block: int, origin: str
) -> Constant:
    """One scale for every `block` codes along the axis."""
    wanted = [-(-n // block) if i == axis else n for i, n in enumerate(codes.shape)]
    if block < 1 or list(scale.shape) != wanted:
        found = f"its scale has shape {list(scale.shape)}, and blocks of {block} in {list(codes.shape)} need {wanted}"
        raise ModelError(f"Importing {node}", found, "Export the model again")
    zero = np.broadcast_to(zero.reshape(scale.shape) if zero.size == scale.size else zero.reshape([1] * scale.ndim), scale.shape)
    quantized = Quantized(codes.astype(np.int32), encoding, scale.astype(np.float32), zero, axis, block)
    return Constant(real_values(quantized), origin, quantized)


def real_values(quantized: Quantized) -> Array:
    """float32(q - zero_point) * scale."""
    if quantized.block:
        keep = np.arange(quantized.codes.shape[quantized.axis])
        parts = (np.repeat(x, quantized.block, quantized.axis) for x in (quantized.scale, quantized.zero_point))
        scale, zero = (np.take(x, keep, quantized.axis) for x in parts)
        blocked: Array = (quantized.codes.astype(np.int64) - zero).astype(np.float32) * scale
        return blocked
    shape = [1] * quantized.codes.ndim
    if quantized.scale.ndim:
        shape[quantized.axis] = quantized.scale.size
    scale, zero = quantized.scale.reshape(shape), quantized.zero_point.reshape(shape)
    result: Array = ((quantized.codes.astype(np.int64) - zero).astype(np.float32) * scale).reshape(quantized.codes.shape)
    return result


def _carried(node: Node, quantized: Quantized, array: Array) -> Quantized | None:
    """The integers behind a constant that was only moved about; None where they cannot follow."""
    codes, axis = quantized.codes, quantized.axis
    if node.op_type in ("Identity", "Dropout"):
        return quantized
    if quantized.block:
        return _carried_blocks(node, quantized)
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm") or list(range(codes.ndim))[::-1]
        codes, axis = np.transpose(codes, perm), list(perm).index(axis) if codes.ndim else 0
    elif node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        old, new = codes.shape, array.shape
        if quantized.scale.ndim:
            before = math.prod(old[:axis])
            places = [i for i in range(len(new)) if math.prod(new[:i]) == before and new[i] == old[axis]]
            if not places:
                return None
            axis = places[0]
        codes = codes.reshape(new)
    else:
        return None
    return Quantized(np.asarray(codes, order="C"), quantized.encoding, quantized.scale, quantized.zero_point, axis)


def _carried_blocks(node: Node, quantized: Quantized) -> Quantized | None:
    """Blocked codes after a transposition; None for any other move."""
    if node.op_type != "Transpose":
        return None
    perm = list(node.attributes.get("perm") or range(quantized.codes.ndim)[::-1])
    codes, scale = np.transpose(quantized.codes, perm), np.transpose(quantized.scale, perm)
    zero = np.transpose(quantized.zero_point, perm)
    return Quantized(np.ascontiguousarray(codes), quantized.encoding, scale, zero, perm.index(quantized.axis), quantized.block)
