"""MatMulNBits: a matrix of packed 2-, 4- or 8-bit weights with one scale for every block of inputs.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits: B is uint8
[N, blocks, block_size * bits / 8], low bits first; scales [N, blocks]; zero points packed alike, 2^(bits - 1) where left out.
Activations stay float32: `accuracy_level`, which lets onnxruntime round them to 8 bits on the way, is a speed hint and is not
part of what the model says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.folding import check_weight_scale, dequantize_constant
from weakcell.emulator.importer.symbols import Array, Constant, Node, QuantizedConstant, Recipe, Symbol
from weakcell.emulator.ir.layers import Encoding, OperandStep
from weakcell.memmodels.errors import ModelError


def lower_matmul_nbits(builder: NetworkBuilder, node: Node) -> Symbol:
    """A MatMul (and Add, if there is a bias) with the unpacked weight, which is stored as its packed bits."""
    asked, given = f"Importing {node}", node.attributes
    outputs, inputs, block = (int(given.get(key, 0)) for key in ("N", "K", "block_size"))
    bits = int(given.get("bits", 4))
    packed, scale, zero = (builder.constant(node, index) for index in (1, 2, 3))
    if node.input(4) or packed is None or scale is None:
        raise ModelError(asked, "it has a group index, or no weights", "Export the model without g_idx")
    if bits not in (2, 4, 8) or min(outputs, inputs, block) < 1 or packed.array.dtype != np.uint8:
        found = f"N {outputs}, K {inputs}, {bits} bits in blocks of {block}, held as {packed.array.dtype}"
        raise ModelError(asked, found, "2-, 4- or 8-bit weights packed in uint8 are supported")
    check_weight_scale(node, scale.array)
    blocks = -(-inputs // block)
    codes = _unpack(packed.array, bits, outputs, blocks * block, asked)[:, :inputs]
    points = np.full((outputs, blocks), 1 << (bits - 1), np.int32)
    if zero is not None:
        if zero.array.dtype != np.uint8:
            raise ModelError(asked, f"its zero points are {zero.array.dtype}", "Integer zero points (packed uint8) are supported")
        points = _unpack(zero.array, bits, outputs, blocks, asked)
    if scale.array.size != outputs * blocks:
        raise ModelError(asked, f"it has {scale.array.size} scales, and {outputs} x {blocks} are needed", "Export the model again")
    scales = scale.array.astype(np.float32).reshape(outputs, blocks)
    encoding = Encoding("unsigned", bits)
    quantized = QuantizedConstant(codes.T, encoding, scales.T, points.T, 0, block)
    steps = (
        OperandStep("DequantizeLinear", 21, {"axis": 1, "block_size": block}, (None, scales, points)),
        OperandStep("Transpose", 13, {"perm": [1, 0]}, (None,)),
    )
    recipe = Recipe(packed.origin, np.ascontiguousarray(codes), encoding, steps)
    weight = f"{packed.origin}.weight"
    builder.symbols[weight] = Constant(dequantize_constant(quantized), packed.origin, quantized, recipe=recipe)
    bias = node.input(5)
    product = f"{node.outputs[0]}.product" if bias else node.outputs[0]
    plain = replace(node, op_type="MatMul", domain="", opset=17, attributes={})
    builder.lower(builder, replace(plain, inputs=(node.input(0), weight), outputs=(product,)))
    if bias:
        builder.lower(builder, replace(plain, op_type="Add", inputs=(product, bias)))
    return builder.symbols[node.outputs[0]]


def _unpack(packed: Array, bits: int, rows: int, columns: int, asked: str) -> Array:
    """Unsigned codes (rows, columns), each row starting at a byte of its own."""
    per_byte = 8 // bits
    row_bytes = -(-columns // per_byte)
    if packed.size != rows * row_bytes:
        found = f"its packed tensor has {packed.size} bytes, and {rows} x {row_bytes} are needed"
        raise ModelError(asked, found, "Export the model again")
    parts = packed.reshape(rows, row_bytes, 1) >> (np.arange(per_byte, dtype=np.uint8) * bits)
    return np.asarray((parts & ((1 << bits) - 1)).reshape(rows, -1)[:, :columns].astype(np.int32))
