"""Products of quantized sequences [N, …, K] with stored weights: integer sums, and what follows up to the next quantizer.

The vectors of a sequence are the pixels of an image with K channels, and the product is a convolution of it. Its sums, the steps
behind them and their quantization keep this order. The codes that result are moved back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from weakcell.emulator.importer import pointwise, qdq
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.integer_ops import add_codes_operator, materialize_codes
from weakcell.emulator.importer.linear import INT32_SUM, add_integer_sum, as_summable, fits_int32, stored_weight
from weakcell.emulator.importer.symbols import INTEGER_RANKS, Codes, Constant, Node, PendingQuantized, RowProduct, Symbol
from weakcell.emulator.importer.tensor_store import IncompatibleWeightOrder
from weakcell.emulator.ir.layers import Reshape


def lower_row_product(builder: NetworkBuilder, node: Node) -> Symbol | None:
    """Lower a MatMul of such a sequence, or a node behind it that keeps the order of its sums; None for any other node."""
    if node.op_type == "MatMul":
        return _add_product(builder, node)
    products = [i for i, name in enumerate(node.inputs) if name and isinstance(builder.symbols[name], RowProduct)]
    if len(products) != 1:
        return None
    product = builder.symbols[node.inputs[products[0]]]
    assert isinstance(product, RowProduct)
    if node.op_type == "Identity":
        return product
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        result = _lower_channels(builder, node, products[0], product, pointwise.lower_arithmetic)
    elif node.op_type in ("Clip", "Relu"):
        result = _lower_channels(builder, node, products[0], product, pointwise.lower_unary)
    elif node.op_type == "QuantizeLinear" and products == [0] and len(product.shape) in INTEGER_RANKS:
        codes = _lower_channels(builder, node, 0, product, qdq.lower_quantize)
        return _in_rows(builder, node, codes, product.shape) if isinstance(codes, Codes) else None
    else:
        return None
    return replace(product, pending=result) if isinstance(result, PendingQuantized) else None


def _add_product(builder: NetworkBuilder, node: Node) -> RowProduct | None:
    """Add the integer sums of a MatMul; None if they cannot be integers."""
    weight = builder.symbols.get(node.input(1))
    source = builder.symbols[node.input(0)]
    if not isinstance(weight, Constant) or not isinstance(source, PendingQuantized) or len(source.shape) < 2:
        return None
    wraps, plain = INT32_SUM in node.attributes, replace(node, attributes={})
    stored = stored_weight(plain, weight)
    if stored is None or stored.block or stored.shape[1] != source.shape[-1] or 0 in source.shape:
        return None
    pending = as_summable(builder, source, node.input(0), padded=False)
    if pending is None or builder.values[pending.value].kind != "codes" or not fits_int32(builder, plain, pending, stored, wraps):
        return None
    outputs, inner = stored.shape
    image = _as_image(builder, pending, node)
    pixels = replace(stored, codes=stored.codes.reshape(outputs, inner, 1, 1))
    try:
        total = add_integer_sum(builder, replace(plain, op_type="Conv", inputs=node.inputs[:2]), image, pixels, wraps)
    except IncompatibleWeightOrder:
        return None
    return RowProduct(total, (*source.shape[:-1], outputs))


def _as_image(builder: NetworkBuilder, pending: PendingQuantized, node: Node) -> PendingQuantized:
    """Return codes (…, K) as an image (K, rows, 1): once for all products that read them."""
    *rows, inner = pending.shape
    count, name = math.prod(rows), f"{pending.value}.rows"
    if name not in builder.values:
        spec = builder.values[pending.value]
        flat = materialize_codes(builder, replace(pending, shape=(count, inner)), node)
        turn = Node("Transpose", "", 13, f"{name}.transpose", (), (name,), {"perm": [0, 2, 1]})
        target = replace(spec, name=builder.unique_name(f"{name}.turned"))
        turned = add_codes_operator(builder, turn, [flat], [None], target, builder.ranges[pending.value])
        layer = Reshape(f"{name}.reshape", (turned.value,), name)
        builder.add_layer(layer, replace(spec, name=name, shape=(inner, count, 1)), builder.ranges[pending.value])
    return replace(pending, value=name, shape=(inner, count, 1))


def _lower_channels(
    builder: NetworkBuilder, node: Node, index: int, product: RowProduct, lower: Callable[[NetworkBuilder, Node], Symbol]
) -> Symbol | None:
    """Lower a node on the sums as they lie, (O, rows, 1).

    Args:
        builder: the network under construction.
        node: the node.
        index: of its input that is the product.
        product: that input.
        lower: the lowering of a node on quantized values.

    Returns:
        None if another input is no constant, or varies along another axis than the last.
    """
    inputs = list(node.inputs)
    for i, name in enumerate(node.inputs):
        symbol = builder.symbols[name] if name else None
        if i == index:
            inputs[i] = f"{name}.channels"
            builder.symbols[inputs[i]] = product.pending
        elif symbol is not None and not isinstance(symbol, Constant):
            return None
        elif symbol is not None and math.prod(symbol.shape) > 1:
            if symbol.shape[-1] != math.prod(symbol.shape) or symbol.shape[-1] != product.shape[-1]:
                return None
            if len(symbol.shape) > len(product.shape) + 1:
                return None
            inputs[i] = f"{name}.channels"
            column = symbol.array.reshape(-1, 1, 1)
            builder.symbols[inputs[i]] = Constant(column, symbol.origin, symbol.quantized)
    return lower(builder, replace(node, inputs=tuple(inputs), outputs=(f"{node.outputs[0]}.channels",)))


def _in_rows(builder: NetworkBuilder, node: Node, codes: Codes, shape: tuple[int, ...]) -> Codes:
    """Move codes (O, rows, 1) back to (…, O)."""
    outputs, count, _ = codes.shape
    value_range = builder.ranges[codes.value]
    flat = materialize_codes(builder, replace(codes, shape=(outputs, count)), node)
    turn = Node("Transpose", "", 13, f"{node.name}.transpose", (), node.outputs, {"perm": [0, 2, 1]})
    last = shape == (count, outputs)
    name = builder.integer_name(node.outputs[0]) if last else builder.unique_name(f"{node.outputs[0]}.turned")
    turned = add_codes_operator(builder, turn, [flat], [None], replace(builder.values[flat.value], name=name), value_range)
    return materialize_codes(builder, replace(turned, shape=shape), node)
