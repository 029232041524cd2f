"""Weights that Microsoft's operators keep in packed blocks: MatMulNBits and GatherBlockQuantized.

Reference: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.

MatMulNBits has packed 2-, 4- or 8-bit weights with one scale for every block of inputs. B is uint8
[N, blocks, block_size * bits / 8], low bits first. Scales are [N, blocks]. Zero points are packed like B, or floats; without them
they are 2^(bits - 1). A group index names the block of each input (GPTQ with act-order). Activations stay float32:
`accuracy_level`, which lets onnxruntime round them to 8 bits, is a hint for speed only.

GatherBlockQuantized is an embedding: the table is int4, uint4, or uint8 that holds numbers of 4 or 8 bits. Its rows are dequantized
after they are gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.constant_recipe import integer_encoding
from weakcell.emulator.importer.fallback import lower_float
from weakcell.emulator.importer.folding import check_weight_scale
from weakcell.emulator.importer.symbols import Array, Constant, Node, QuantizedConstant, Recipe, Symbol
from weakcell.emulator.ir.operators import OperandStep
from weakcell.emulator.ir.values import Encoding
from weakcell.memmodels.errors import ModelError


def lower_matmul_nbits(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower MatMulNBits to MatMul and Add; the weight is stored as its packed bits."""
    asked, given = f"Importing {node}", node.attributes
    outputs, inputs, block = (int(given.get(key, 0)) for key in ("N", "K", "block_size"))
    bits = int(given.get("bits", 4))
    packed, scale, zero, groups = (builder.constant(node, index) for index in (1, 2, 3, 4))
    if packed is None or scale is None:
        raise ModelError(asked, "it has no weights", "Export the model again")
    if bits not in (2, 4, 8) or min(outputs, inputs, block) < 1 or packed.array.dtype != np.uint8:
        found = f"N {outputs}, K {inputs}, {bits} bits in blocks of {block}, held as {packed.array.dtype}"
        raise ModelError(asked, found, "2-, 4- or 8-bit weights packed in uint8 are supported")
    check_weight_scale(node, scale.array)
    blocks = -(-inputs // block)
    codes = np.ascontiguousarray(_unpack(packed.array, bits, outputs, blocks * block, asked)[:, :inputs])
    points: Array = np.full((outputs, blocks), 1 << (bits - 1), np.int32)
    if zero is not None and zero.array.dtype == np.uint8:
        points = _unpack(zero.array, bits, outputs, blocks, asked)
    elif zero is not None:
        points = zero.array.astype(np.float32).reshape(outputs, blocks)
    if scale.array.size != outputs * blocks:
        raise ModelError(asked, f"it has {scale.array.size} scales, and {outputs} x {blocks} are needed", "Export the model again")
    scales = scale.array.astype(np.float32).reshape(outputs, blocks)
    weight = f"{packed.origin}.weight"
    recipe = Recipe(packed.origin, codes, Encoding("unsigned", bits))
    if points.dtype == np.int32 and groups is None:
        builder.symbols[weight] = _blocked(recipe, scales, points, block)
    else:
        of_input = np.arange(inputs) // block if groups is None else groups.array.reshape(-1)[:inputs].astype(np.int64)
        if of_input.size != inputs or of_input.min() < 0 or of_input.max() >= blocks:
            raise ModelError(
                asked, f"its group index does not name one of {blocks} blocks for each input", "Export the model again"
            )
        builder.symbols[weight] = _by_group(recipe, scales[:, of_input], points[:, of_input])
    bias = node.input(5)
    product = f"{node.outputs[0]}.product" if bias else node.outputs[0]
    plain = replace(node, op_type="MatMul", domain="", opset=17, attributes={})
    builder.lower(builder, replace(plain, inputs=(node.input(0), weight), outputs=(product,)))
    if bias:
        builder.lower(builder, replace(plain, op_type="Add", inputs=(product, bias)))
    return builder.symbols[node.outputs[0]]


_TRANSPOSE = OperandStep("Transpose", 13, {"perm": [1, 0]}, (None,))


def _blocked(recipe: Recipe, scales: Array, points: Array, block: int) -> Constant:
    """Return the weight (K, N) of codes (N, K) with scales (N, blocks)."""
    quantized = QuantizedConstant(recipe.codes.T, recipe.encoding, scales.T, points.T, 0, block)
    steps = (OperandStep("DequantizeLinear", 21, {"axis": 1, "block_size": block}, (None, scales, points)), _TRANSPOSE)
    return Constant(None, recipe.origin, quantized, recipe=replace(recipe, steps=steps))


def _by_group(recipe: Recipe, scales: Array, points: Array) -> Constant:
    """Return the weight (K, N) of codes (N, K) with a scale and a zero point for each."""
    cast = OperandStep("Cast", 13, {"to": 1}, (None,))
    subtract, multiply = (
        OperandStep(name, 14, {}, (None, np.ascontiguousarray(x, np.float32))) for name, x in (("Sub", points), ("Mul", scales))
    )
    real = (recipe.codes.astype(np.float32) - points.astype(np.float32)) * scales
    steps = (cast, subtract, multiply, _TRANSPOSE)
    return Constant(np.ascontiguousarray(real.T), recipe.origin, recipe=replace(recipe, steps=steps))


def _unpack(packed: Array, bits: int, rows: int, columns: int, asked: str) -> Array:
    """Return unsigned codes (rows, columns).

    Each packed row starts at a byte of its own.
    """
    per_byte = 8 // bits
    row_bytes = -(-columns // per_byte)
    if packed.size != rows * row_bytes:
        found = f"its packed tensor has {packed.size} bytes, and {rows} x {row_bytes} are needed"
        raise ModelError(asked, found, "Export the model again")
    parts = packed.reshape(rows, row_bytes, 1) >> (np.arange(per_byte, dtype=np.uint8) * bits)
    return np.asarray((parts & ((1 << bits) - 1)).reshape(rows, -1)[:, :columns].astype(np.int32))


# ── embeddings ────────────────────────────────────────────────────────────────────────────────────────


def lower_gather_blocks(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower GatherBlockQuantized; the table is stored as its numbers of 4 or 8 bits."""
    asked = f"Importing {node}"
    table, scale, zero = (builder.constant(node, index) for index in (0, 2, 3))
    if table is None or scale is None:
        raise ModelError(asked, "it has no table", "Export the model again")
    check_weight_scale(node, scale.array)
    bits = int(node.attributes.get("bits", 4)) if table.array.dtype == np.uint8 else 4
    encoding = integer_encoding(table.array.dtype)
    if bits not in (4, 8) or encoding is None:
        raise ModelError(asked, f"its table is {table.array.dtype} of {bits} bits", "4- and 8-bit tables are supported")
    codes, points = table.array, None if zero is None else zero.array
    if table.array.dtype == np.uint8:
        encoding = Encoding("unsigned", bits)
        last = scale.shape[-1]
        codes = _unpack(codes, bits, codes.size // codes.shape[-1], codes.shape[-1] * 8 // bits, asked)
        codes = codes.reshape(*table.shape[:-1], -1)
        if points is not None:
            points = _unpack(points, bits, scale.array.size // last, last, asked).reshape(scale.shape)
        else:
            points = np.full(scale.shape, 1 << (bits - 1), np.int32)
    name = node.outputs[0]
    operands = {"codes": codes.astype(np.int32), "points": None if points is None else points.astype(np.int32)}
    for key, array in operands.items():
        if array is not None:
            recipe = Recipe(table.origin, array, encoding) if key == "codes" else None
            builder.symbols[f"{name}.{key}"] = Constant(array, table.origin, recipe=recipe)
    inputs = (f"{name}.codes", node.input(1), node.input(2), *([f"{name}.points"] if points is not None else []))
    return lower_float(builder, replace(node, inputs=inputs))


LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], Symbol]] = {
    "GatherBlockQuantized": lower_gather_blocks,
    "MatMulNBits": lower_matmul_nbits,
}
