"""Integers that several nodes read: every value that is computed from stored integers must follow their flips.

A layer of integers reads stored integers in one order. Other lowerings make a part of a layer of them: a scale, a zero point, a
step behind a sum. If no node reads the same integers as a weight, they are outside the memory, and `unplaced_integers.py` names
them. If a node does, the memory holds them, and a flip must change both. The file is then imported again with these integers as
shared (`Recipe.kind`): float operators compute every value from them at each run. What cannot be computed so is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from weakcell.emulator import onnx_ops
from weakcell.emulator.importer.builder import NetworkBuilder
from weakcell.emulator.importer.constant_recipe import SHAPES_ONLY, element_positions, same_integers
from weakcell.emulator.importer.fallback import operator_key
from weakcell.emulator.importer.parse import Graph
from weakcell.emulator.importer.symbols import Constant, Node, Recipe
from weakcell.emulator.ir.network import Network
from weakcell.memmodels.errors import ModelError


def note_frozen(builder: NetworkBuilder, node: Node, reads: Sequence[Recipe]) -> None:
    """Note the stored tensors whose integers became part of a layer, as they are in the file.

    Args:
        builder: the network under construction.
        node: a node that was lowered.
        reads: the recipes that its layers compute at each run.
    """
    if node.op_type in SHAPES_ONLY:
        return
    constants = {id(x): x for name in node.inputs if name and isinstance(x := builder.symbols[name], Constant)}
    recipes = {id(recipe): recipe for recipe in reads}
    for constant in constants.values():
        origins = frozenset() if constant.recipe is None else constant.recipe.origins
        for origin in origins:
            wanted = sum(x.recipe is not None and origin in x.recipe.origins for x in constants.values())
            if sum(origin in recipe.origins for recipe in recipes.values()) < wanted:
                builder.frozen.setdefault(origin, node)
        for origin in constant.frozen:
            builder.frozen.setdefault(origin, node)


def note_frozen_condition(builder: NetworkBuilder, node: Node) -> None:
    """Note the stored tensors that decide which branch an If takes, or how often a Loop runs."""
    for name in node.inputs[: {"If": 1, "Loop": 2}.get(node.op_type, 0)]:
        symbol = builder.symbols.get(name)
        if isinstance(symbol, Constant):
            for origin in symbol.frozen.union(() if symbol.recipe is None else symbol.recipe.origins):
                builder.frozen.setdefault(origin, node)


def computes_with_shared(builder: NetworkBuilder, node: Node) -> bool:
    """Return whether a node must be a float operator, because it reads shared integers."""
    symbols = (builder.symbols[name] for name in node.inputs if name)
    shared = any(isinstance(x, Constant) and x.recipe is not None and x.recipe.is_shared for x in symbols)
    return shared and operator_key(node) in onnx_ops.OPERATORS


def fold_quantizer(node: Node, inputs: list[Constant | None], fold: Callable[[Node, list[Constant | None]], Constant]) -> Constant:
    """Return the constant that a quantizer of another domain makes of floats.

    Args:
        node: the quantizer.
        inputs: its inputs.
        fold: of its domain.

    Raises:
        ModelError: its input is computed from integers of the file.
    """
    source = inputs[0].recipe if inputs and inputs[0] is not None else None
    if source is not None and source.kind != "quantized":
        found = f"it quantizes a constant that is computed from the integers {source.origin!r} of the file"
        raise ModelError(f"Folding {node}", found, "Quantize the floats themselves, and export the model again")
    return fold(node, inputs)


def find_conflicts(network: Network, builder: NetworkBuilder, graph: Graph) -> dict[str, str]:
    """Return the integers of the file that the network holds in a memory, but not everywhere reads from there.

    Args:
        network: as imported from `graph`.
        builder: of the network.
        graph: the file.

    Returns:
        What reads them otherwise, by tensor of the file.
    """
    tensors: dict[str, list[Recipe]] = {}
    for name, entry in builder.stored.weights.items():
        recipe = entry.tensor.recipe
        if name in network.tensors and recipe is not None and _is_file_integers(recipe.origin, builder, graph):
            tensors.setdefault(recipe.origin, []).append(recipe)
    conflicts = {}
    for origin, recipes in tensors.items():
        if origin in builder.frozen:
            conflicts[origin] = f"{builder.frozen[origin]} reads them as a constant"
        elif len(recipes) > 1 and _overlap(recipes):
            conflicts[origin] = "layers read overlapping parts of them in different orders"
    return conflicts


def _is_file_integers(origin: str, builder: NetworkBuilder, graph: Graph) -> bool:
    """Return whether a name is one of integers in the file, not of floats that are quantized."""
    if origin in graph.initializers:
        return "int" in graph.initializers[origin].dtype
    symbol = builder.symbols.get(origin)
    literals = (x for x in builder.literals.values() if x.origin == origin)
    symbol = symbol if isinstance(symbol, Constant) else next(literals, None)
    return symbol is not None and symbol.recipe is not None and symbol.recipe.kind != "quantized" and not symbol.recipe.steps


def _overlap(recipes: Sequence[Recipe]) -> bool:
    """Return whether tensors of the same integers hold some of these twice."""
    if any(not same_integers(recipes[0], other) for other in recipes[1:]):
        return True
    positions = np.concatenate([np.unique(element_positions(recipe)) for recipe in recipes])
    return np.unique(positions).size < positions.size


def check_conflicts(name: str, conflicts: Mapping[str, str], shared: frozenset[str]) -> None:
    """Refuse integers that the network cannot read from a memory everywhere, although they count as shared."""
    for origin, why in conflicts.items():
        if origin in shared:
            found = f"the integers {origin!r} are weights of one layer, and {why}: their errors in a memory could not reach both"
            raise ModelError(f"Importing the model {name}", found, "Give each use a tensor of its own, and export the model again")
