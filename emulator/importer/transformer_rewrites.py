"""Fused operators of transformers, which onnxruntime's optimizers write, as the operators that they were fused from.

References: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md. What is left of an attention is
MultiHeadAttention, which runs in float32. The matrix products before it become layers of their own, so that their weights
live in the memory.
"""

from __future__ import annotations

from collections.abc import Callable

from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.node_writer import MICROSOFT, NodeWriter
from weakcell.emulator.importer.symbols import Constant, Node, Symbol
from weakcell.emulator.onnx_ops import CACHE, CACHED
from weakcell.memmodels.errors import ModelError

Rewrite = Callable[[NodeWriter], list[Node]]


def _output(node: Node, index: int) -> str:
    """Return the name of an output, "" if nobody names it."""
    return node.outputs[index] if index < len(node.outputs) else ""


# ── normalizations ────────────────────────────────────────────────────────────────────────────────────


def _simplified(w: NodeWriter) -> list[Node]:
    """Rewrite SimplifiedLayerNormalization: x, scale."""
    given = {key: value for key, value in w.node.attributes.items() if key in ("axis", "epsilon")}
    w.add_several("RMSNormalization", w.node.inputs, w.node.outputs, **given)
    return w.nodes


def _skip(w: NodeWriter) -> list[Node]:
    """Rewrite SkipLayerNormalization: x, skip, gamma, beta, bias; outputs y, mean, deviation, sum."""
    i = w.node.input
    total = w.sum(i(0), i(1), i(4), output=_output(w.node, 3))
    _normalize(w, total, i(2), i(3), (w.node.outputs[0], _output(w.node, 1), _output(w.node, 2)))
    return w.nodes


def _skip_simplified(w: NodeWriter) -> list[Node]:
    """Rewrite SkipSimplifiedLayerNormalization: x, skip, gamma, bias."""
    i = w.node.input
    total = w.sum(i(0), i(1), i(3), output=_output(w.node, 3))
    w.add_several("RMSNormalization", (total, i(2)), (w.node.outputs[0],), epsilon=_epsilon(w.node, 1e-12))
    return w.nodes


def _normalize(w: NodeWriter, x: str, gamma: str, beta: str, outputs: tuple[str, ...]) -> None:
    w.add_several("LayerNormalization", (x, gamma, beta), outputs, epsilon=_epsilon(w.node, 1e-12))


def _epsilon(node: Node, default: float) -> float:
    return float(node.attributes.get("epsilon", default))


def _embed(w: NodeWriter) -> list[Node]:
    """Rewrite EmbedLayerNormalization: ids, segments, three tables, gamma, beta, mask, positions."""
    i = w.node.input
    return _embedding(w, (i(2), i(3), i(4), i(5), i(6)), i(8))


def _quantized_embed(w: NodeWriter) -> list[Node]:
    """Rewrite QEmbedLayerNormalization: its tables, gamma and beta are integers, with scales and zero points."""
    i = w.node.input
    parts = [w.dequantize(i(2 + k), i(8 + k), i(13 + k)) if i(2 + k) else "" for k in range(5)]
    return _embedding(w, (parts[0], parts[1], parts[2], parts[3], parts[4]), "")


def _embedding(w: NodeWriter, tables: tuple[str, str, str, str, str], positions: str) -> list[Node]:
    """Append the sum of the embeddings of words, positions and segments, and its normalization."""
    i, (words, places, segments, gamma, beta) = w.node.input, tables
    parts = [w.add("Gather", words, i(0), axis=0)]
    if positions:
        parts.append(w.add("Gather", places, positions, axis=0))
    else:
        length = w.add("Shape", i(0), start=1, end=2)
        parts.append(w.add("Slice", places, w.constant([0]), length, w.constant([0])))
    if segments and i(1):
        parts.append(w.add("Gather", segments, i(1), axis=0))
    total = w.sum(*parts, output=_output(w.node, 2))
    _normalize(w, total, gamma, beta, (w.node.outputs[0],))
    if counts := _output(w.node, 1):
        w.add_several("ReduceSum", (i(7), w.constant([1])), (counts,), keepdims=0)
    return w.nodes


# ── activations ───────────────────────────────────────────────────────────────────────────────────────


def _gelu(approximate: str) -> Rewrite:
    """Return the rewrite of a Gelu of x and an optional bias."""

    def write(w: NodeWriter) -> list[Node]:
        """Return the nodes for one operator."""
        total = w.sum(w.node.input(0), w.node.input(1))
        w.add("Gelu", total, output=w.node.outputs[0], approximate=approximate)
        return w.nodes

    return write


def _quick_gelu(w: NodeWriter) -> list[Node]:
    """Rewrite QuickGelu: x * sigmoid(alpha * x)."""
    x = w.node.input(0)
    scaled = w.add("Mul", x, w.constant(float(w.node.attributes.get("alpha", 1.702))))
    w.add("Mul", x, w.add("Sigmoid", scaled), output=w.node.outputs[0])
    return w.nodes


def _bias_add(w: NodeWriter) -> list[Node]:
    """Rewrite BiasAdd: x + bias + skip."""
    w.sum(*w.node.inputs, output=w.node.outputs[0])
    return w.nodes


# ── products ──────────────────────────────────────────────────────────────────────────────────────────


def lower_fused_matmul(builder: NetworkBuilder, node: Node) -> Symbol:
    """Lower FusedMatMul: alpha * A B, either transposed in its last two axes."""
    given, w = node.attributes, NodeWriter(node)
    if given.get("transBatchA", 0) or given.get("transBatchB", 0):
        raise ModelError(f"Importing {node}", "it moves the batch of an operand", "Export the model without optimizations")
    names = list(node.inputs[:2])
    for index, key in enumerate(("transA", "transB")):
        if given.get(key, 0):
            symbol = builder.symbol(names[index])
            rank = symbol.array.ndim if isinstance(symbol, Constant) else len(symbol.shape) + 1
            names[index] = w.add("Transpose", names[index], perm=[*range(rank - 2), rank - 1, rank - 2])
    alpha = float(given.get("alpha", 1.0))
    product = w.add("MatMul", *names, output=node.outputs[0] if alpha == 1 else "")
    if alpha != 1:
        w.add("Mul", product, w.constant(alpha), output=node.outputs[0])
    for part in w.nodes:
        builder.lower(builder, part)
    return builder.symbols[node.outputs[0]]


_FUSED_ACTIVATIONS = {"Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


def _fused_conv(w: NodeWriter) -> list[Node]:
    """Rewrite FusedConv: x, weight, bias, sum; then an activation."""
    node, i = w.node, w.node.input
    own = ("activation", "activation_params")
    name, numbers = str(node.attributes.get("activation", "")), tuple(node.attributes.get("activation_params", ()))
    if name not in _FUSED_ACTIVATIONS and name != "Clip":
        raise ModelError(f"Importing {node}", f"its activation is {name!r}", "Export the model without optimizations")
    plain = {key: value for key, value in node.attributes.items() if key not in own}
    y = w.add("Conv", i(0), i(1), *([i(2)] if i(2) else []), **plain)
    y = w.sum(y, i(3))
    if name == "Clip":
        w.add("Clip", y, *(w.constant(float(n)) for n in numbers), output=node.outputs[0])
    else:
        w.add(name, y, output=node.outputs[0], **dict(zip(_FUSED_ACTIVATIONS[name], numbers, strict=False)))
    return w.nodes


def _fused_gemm(w: NodeWriter) -> list[Node]:
    """Rewrite FusedGemm: a Gemm, then an activation."""
    node = w.node
    name = str(node.attributes.get("activation", ""))
    if name not in _FUSED_ACTIVATIONS:
        raise ModelError(f"Importing {node}", f"its activation is {name!r}", "Export the model without optimizations")
    plain = {key: value for key, value in node.attributes.items() if not key.startswith("activation")}
    y = w.add("Gemm", *node.inputs, **plain)
    numbers = {
        key: node.attributes[f"activation_{key}"] for key in _FUSED_ACTIVATIONS[name] if f"activation_{key}" in node.attributes
    }
    w.add(name, y, output=node.outputs[0], **numbers)
    return w.nodes


# ── attention ─────────────────────────────────────────────────────────────────────────────────────────


def _attention(w: NodeWriter) -> list[Node]:
    """Rewrite Attention of Microsoft: x, weights, bias, mask, past, bias of the scores."""
    i = w.node.input
    product = w.add("MatMul", i(0), i(1))
    return _heads(w, w.sum(product, i(2)), mask=i(3), past=i(4), scores=i(5))


def _quantized_attention(w: NodeWriter) -> list[Node]:
    """Rewrite QAttention: x, weights, bias, scale of x, scale of weights, mask, zero points of both, past."""
    i = w.node.input
    acc = w.add("MatMulInteger", i(0), i(1), i(6), i(7))
    product = w.add("Mul", w.add("Cast", acc, to=1), w.add("Mul", i(3), i(4)))
    return _heads(w, w.sum(product, i(2)), mask=i(5), past=i(8), scores="")


def _heads(w: NodeWriter, product: str, *, mask: str, past: str, scores: str) -> list[Node]:
    """Append the split of queries, keys and values, and the attention."""
    node, given = w.node, w.node.attributes
    if past or _output(node, 1) or given.get("do_rotary", 0):
        do = "Export the model with MultiHeadAttention or GroupQueryAttention, or without fusions"
        raise ModelError(f"Importing {node}", "it has a key-value cache or rotary embeddings of the older form", do)
    parts = tuple(f"{node.outputs[0]}.{part}" for part in ("query", "key", "value"))
    sizes = [int(n) for n in given.get("qkv_hidden_sizes", ())]
    if sizes:
        w.add_several("Split", (product, w.constant(sizes)), parts, axis=2)
    else:
        w.add_several("Split", (product,), parts, axis=2, num_outputs=3)
    kept = {key: given[key] for key in ("num_heads", "unidirectional", "mask_filter_value", "scale") if key in given}
    w.add_several("MultiHeadAttention", (*parts, "", mask, scores), node.outputs[:1], MICROSOFT, **kept)
    return w.nodes


def _with_cache(past: int) -> Rewrite:
    """Return the rewrite of an attention with a key-value cache into what makes the cache and what reads it.

    So a memory can hold the cache. An attention without one stays whole.

    Args:
        past: index of the input with the keys of earlier tokens.
    """

    def write(w: NodeWriter) -> list[Node]:
        """Return the nodes for one operator."""
        node = w.node
        if not (node.input(past) or _output(node, 1) or _output(node, 2)):
            return [node]
        cache = tuple(_output(node, i) or f"{node.outputs[0]}.{part}" for i, part in ((1, "key"), (2, "value")))
        domain = node.domain or "weakcell"
        w.add_several(f"{node.op_type}{CACHE}", node.inputs, cache, domain, **node.attributes)
        outputs = (node.outputs[0], *node.outputs[3:])
        w.add_several(f"{node.op_type}{CACHED}", (*cache, *node.inputs), outputs, domain, **node.attributes)
        return w.nodes

    return write


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "Attention"): _with_cache(4),
    (MICROSOFT, "MultiHeadAttention"): _with_cache(6),
    (MICROSOFT, "GroupQueryAttention"): _with_cache(3),
    ("", "SimplifiedLayerNormalization"): _simplified,
    (MICROSOFT, "SimplifiedLayerNormalization"): _simplified,
    (MICROSOFT, "SkipLayerNormalization"): _skip,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_simplified,
    (MICROSOFT, "EmbedLayerNormalization"): _embed,
    (MICROSOFT, "QEmbedLayerNormalization"): _quantized_embed,
    (MICROSOFT, "Gelu"): _gelu("none"),
    (MICROSOFT, "BiasGelu"): _gelu("none"),
    (MICROSOFT, "FastGelu"): _gelu("tanh"),
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "BiasAdd"): _bias_add,
    (MICROSOFT, "FusedConv"): _fused_conv,
    (MICROSOFT, "FusedGemm"): _fused_gemm,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "QAttention"): _quantized_attention,
}

LOWERINGS: dict[str, Callable[[NetworkBuilder, Node], Symbol]] = {
    "FusedMatMul": lower_fused_matmul,
    "TransposeMatMul": lower_fused_matmul,
}
