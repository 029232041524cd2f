"""Quantizers of Sony's Model Compression Toolkit (domain `mct_quantizers`), as QONNX's Quant.

Reference: https://github.com/sony/mct_quantizers. A threshold t and n bits mean the scale t / 2^(n - 1), or t / 2^n without a
sign; a range means a scale and a zero point, after it was moved so that 0 is on the grid. A table of values (LUT) is no grid: its
indices are what a memory stores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from weakcell.emulator.importer import qonnx
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.symbols import Array, Constant, Node, Recipe, Symbol
from weakcell.emulator.ir.operators import OperandStep
from weakcell.emulator.ir.values import Encoding
from weakcell.memmodels.errors import ModelError

DOMAIN = "mct_quantizers"
_LUT = ("WeightsLUTPOTQuantizer", "WeightsLUTSymmetricQuantizer")


def fold(node: Node, inputs: list[Constant | None]) -> Constant:
    """Quantize constant weights; the constant keeps the integers that a memory stores."""
    x, *rest = inputs
    parameters = [p.array.astype(np.float64) for p in rest if p is not None]
    if x is None or not parameters:
        raise ModelError(f"Folding {node}", "it has no weights or no range", "Export the model again")
    if node.op_type in _LUT:
        return _fold_table(node, x, parameters[0], parameters[1])
    bits = int(node.attributes["num_bits"])
    scale, zero = _uniform(parameters[0], parameters[1], bits) if len(parameters) > 1 else _symmetric(parameters[0], bits, True)
    signed = len(parameters) == 1
    operands = (_along(node, scale, x.array.ndim), _along(node, zero, x.array.ndim), np.array(bits))
    constants = [Constant(p.astype(np.float32), x.origin) for p in operands]
    return qonnx.fold(_quant(node, signed), [x, *constants])


def _symmetric(threshold: Array, bits: int, signed: bool) -> tuple[Array, Array]:
    """Return scale and zero point of a threshold."""
    return threshold / 2.0 ** (bits - signed), np.zeros_like(threshold)


def _uniform(low: Array, high: Array, bits: int) -> tuple[Array, Array]:
    """Return scale and zero point of a range that is moved so that 0 is on the grid."""
    steps = 2.0**bits - 1
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (high - low) / steps
    return scale, np.rint(-low / scale)


def _along(node: Node, parameter: Array, rank: int) -> Array:
    """Return a parameter in a shape that broadcasts over the weights."""
    if not node.attributes.get("per_channel", 0):
        return parameter.reshape(())
    axis = int(node.attributes.get("channel_axis", 0)) % rank
    return parameter.reshape([-1 if i == axis else 1 for i in range(rank)])


def _quant(node: Node, signed: bool) -> Node:
    return Node("Quant", qonnx.DOMAIN, 1, node.name, node.inputs, node.outputs, {"signed": int(signed), "narrow": 0})


def _fold_table(node: Node, x: Constant, table: Array, threshold: Array) -> Constant:
    """Return weights that are the nearest values of a table times a threshold; a memory stores the indices."""
    width, bits = int(node.attributes.get("lut_values_bitwidth", 8)), int(node.attributes["num_bits"])
    limits, flat = _along(node, threshold, x.array.ndim), table.reshape(-1)
    if bits > 8 or flat.size > 1 << bits:
        raise ModelError(
            f"Folding {node}", f"its table has {flat.size} values, and its indices {bits} bits", "Export the model again"
        )
    half = 2.0 ** (width - 1)
    grid = np.clip(x.array / (limits + float(node.attributes.get("eps", 1e-8))) * half, -half, half - 1)
    indices, nearest = np.zeros(grid.shape, np.int64), np.full(grid.shape, np.inf)
    for index, value in enumerate(flat):
        distance = np.abs(grid - value)
        indices, nearest = np.where(distance < nearest, index, indices), np.minimum(distance, nearest)
    values = np.zeros(1 << bits, np.float32)
    values[: flat.size] = flat / half
    steps = (
        OperandStep("weakcell.LookUp", 1, {}, (None, values)), OperandStep("Mul", 14, {}, (None, limits.astype(np.float32))),
    )  # fmt: skip
    recipe = Recipe(x.origin, indices, Encoding("unsigned", bits), steps)
    return Constant(np.asarray(values[indices] * limits.astype(np.float32)), x.origin, recipe=recipe)


def lower_activation(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower the quantizer of an activation; its parameters are attributes."""
    given, bits = node.attributes, int(node.attributes["num_bits"])
    if "threshold" in given:
        signed = bool(given.get("signed", 1))
        scale, zero = _symmetric(np.array(given["threshold"]), bits, signed)
    else:
        signed = False
        scale, zero = _uniform(np.array(given["min_range"]), np.array(given["max_range"]), bits)
    names = tuple(f"{node.outputs[0]}.{key}" for key in ("scale", "zero", "bits"))
    for name, number in zip(names, (scale, zero, np.array(bits)), strict=True):
        builder.symbols[name] = Constant(number.astype(np.float32), name)
    return qonnx.lower_quant(builder, replace(_quant(node, signed), inputs=(node.inputs[0], *names)))


_ACTIVATIONS = ("ActivationPOTQuantizer", "ActivationSymmetricQuantizer", "ActivationUniformQuantizer")
WEIGHTS = ("WeightsPOTQuantizer", "WeightsSymmetricQuantizer", "WeightsUniformQuantizer", *_LUT)
LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], Symbol]] = dict.fromkeys(_ACTIVATIONS, lower_activation)
