"""The integers of a file that no memory holds by default, with bits and reason.

Every integer of the file is counted once: it is in a weight tensor of the network, or it is named here. Integers that the
file computes from float weights (a quantizer of constants) count with the bits in which they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.constant_recipe import WIDEST_WEIGHT
from weakcell.emulator.importer.parse import Graph
from weakcell.emulator.importer.subgraph import all_nodes
from weakcell.emulator.importer.symbols import Constant, Node
from weakcell.emulator.ir.network import Network, UnplacedTensor

_REGISTERS = "in registers unless --place names it"
_ZERO_POINTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), (2,)),
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), (2, 3)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), (2, 5, 7)),
    **dict.fromkeys(("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"), (2, 4)),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool"), (2, 4)),
    "QGemm": (2, 5, 8),
    "QLinearConcat": (1, *range(4, 256, 3)),
    "MatMulIntegerToFloat": (4, 5),
    "DynamicQuantizeMatMul": (3,),
    **dict.fromkeys(("MatMulNBits", "GatherBlockQuantized"), (3,)),
    "QAttention": (6, 7),
    "QLinearWhere": (3, 6, 8),
    "QEmbedLayerNormalization": tuple(range(13, 18)),
    "DynamicQuantizeLSTM": (9, 11),
}
_BIASES: Mapping[str, tuple[int, ...]] = {"QLinearConv": (8,), "QGemm": (6,)}
_CARRIERS = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_SIZES = (32, 64)


def find_unplaced_integers(network: Network, builder: NetworkBuilder, graph: Graph) -> tuple[UnplacedTensor, ...]:
    """Return the integers of a file that no weight tensor of the network holds.

    Args:
        network: as imported from `graph`.
        builder: of the network; it knows where the weights come from.
        graph: the file.

    Returns:
        One record per tensor of the file, in its order.
    """
    stored_integers: dict[str, tuple[int, int, int]] = {}
    for name, stored in builder.stored.weights.items():
        recipe = stored.tensor.recipe
        if name in network.tensors and recipe is not None:
            tensor = network.tensors[name]
            elements, bits, _ = stored_integers.get(recipe.origin, (0, 0, 0))
            stored_integers[recipe.origin] = elements + tensor.elements, bits + tensor.bits, recipe.codes.size
    readers = _readers(all_nodes(graph.nodes))
    unplaced = []
    for name, kind, width, elements in _integers(builder, graph):
        if name not in stored_integers:
            unplaced.append(
                UnplacedTensor(name, kind, elements, elements * width, _reason(name, width, elements, network, readers))
            )
            continue
        inside, bits, integers = stored_integers[name]
        bits_left = elements * width - bits
        floats = name in graph.initializers and not _width(graph.initializers[name].dtype)
        if bits_left > 0 and not (floats and inside >= integers):
            why = _rest(inside, integers, bits, width) if integers == elements or floats else "padding of packed weights"
            unplaced.append(UnplacedTensor(name, kind, elements, bits_left, why))
    return tuple(unplaced)


def _integers(builder: NetworkBuilder, graph: Graph) -> Iterator[tuple[str, str, int, int]]:
    """Yield name, type, bits per element and elements of every tensor of integers.

    Floats that the file quantizes itself count as the integers that result.
    """
    seen = set()
    for name, tensor in graph.initializers.items():
        kind = tensor.dtype
        width = _width(kind)
        if width:
            seen.add(name)
            yield name, kind, width, math.prod(tensor.shape)
    for node in all_nodes(graph.nodes):
        value = node.attributes.get("value") if node.op_type == "Constant" else None
        if isinstance(value, np.ndarray) and _width(str(value.dtype)) and node.outputs[0] not in seen:
            seen.add(node.outputs[0])
            yield node.outputs[0], str(value.dtype), _width(str(value.dtype)), value.size
    for symbol in builder.symbols.values():
        recipe = symbol.recipe if isinstance(symbol, Constant) else None
        if recipe is not None and recipe.origin not in seen and recipe.origin in graph.initializers:
            seen.add(recipe.origin)
            yield recipe.origin, str(recipe.encoding), recipe.encoding.bits, recipe.codes.size


def _width(kind: str) -> int:
    """Return the bits per element of an integer type, 0 for any other type."""
    stem = kind.rstrip("0123456789")
    return int(kind[len(stem) :]) if stem in ("int", "uint") and kind != stem else 0


def _readers(nodes: Iterable[Node]) -> dict[str, list[tuple[Node, int]]]:
    readers: dict[str, list[tuple[Node, int]]] = {}
    for node in nodes:
        for index, name in enumerate(node.inputs):
            readers.setdefault(name, []).append((node, index))
    return readers


def _reason(name: str, width: int, elements: int, network: Network, readers: Mapping[str, list[tuple[Node, int]]]) -> str:
    """Return why no memory holds a tensor from which no weight tensor comes."""
    users = readers.get(name, [])
    if not users:
        return "no node reads it"
    if name in network.tensors:
        return f"{network.tensors[name].role}: {_REGISTERS}"
    if all(index in _ZERO_POINTS.get(node.op_type, ()) for node, index in users):
        return f"zero point: {_REGISTERS}"
    if any(index in _BIASES.get(node.op_type, ()) for node, index in users):
        return f"bias: {_REGISTERS}"
    last, index = _operator(name, readers)
    if width > WIDEST_WEIGHT and last is not users[0][0] and users[0][0].op_type == "DequantizeLinear":
        return f"bias: {_REGISTERS}"
    if width in _SIZES:
        return "sizes, axes or indices"
    if last is None:
        return "no operator reads it"
    what = "a single number" if elements == 1 else f"input {index}"
    return f"{what} of {last.op_type} {last.name or last.outputs[0]}: kept as a constant of the layers behind it"


def _operator(name: str, readers: Mapping[str, list[tuple[Node, int]]]) -> tuple[Node | None, int]:
    """Return the first operator that computes with a tensor, and the input index."""
    for _ in range(64):
        users = readers.get(name, [])
        if not users:
            return None, 0
        node, index = users[0]
        if node.op_type not in _CARRIERS or index > 0:
            return node, index
        name = node.outputs[0]
    return None, 0


def _rest(inside: int, integers: int, bits: int, width: int) -> str:
    """Return why a tensor has more bits than the weight tensors made from it."""
    if inside < integers:
        return f"{integers - inside:,} of its {integers:,} integers are read by no layer"
    if bits == inside:
        return f"the signs of its integers are stored, in 1 of {width} bits: the network binarizes them"
    return f"its integers are stored in {bits // inside} of {width} bits, which hold all of their values"
