"""The stored tensors of a network under construction: the same integers are stored once, whoever reads them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace

import numpy as np

from weakcell.emulator.importer.constant_recipe import ImportedTensor, same_integers
from weakcell.emulator.importer.symbols import Recipe
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.operators import FloatOperator, StoredOperand
from weakcell.emulator.ir.values import StoredTensor, ValueSpec, Window


class IncompatibleWeightOrder(Exception):
    """Weights are stored in an order that the kernel of a second layer cannot read."""


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight tensor of the network.

    Attributes:
        reader: what its order in a kernel depends on; None while only float operators read it.
    """

    tensor: ImportedTensor
    reader: tuple[object, ...] | None


@dataclass
class TensorStore:
    """Tensors by name.

    Attributes:
        tensors: all of them.
        weights: those that convolutions and float operators read.
        reads: a recipe for each time that a layer was given integers to read.
    """

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    weights: dict[str, StoredWeight] = field(default_factory=dict)
    reads: list[Recipe] = field(default_factory=list)

    def store(self, tensor: StoredTensor) -> str:
        """Store a tensor and return its name.

        The same numbers under the same name are stored once.
        """
        known = self.tensors.get(tensor.name)
        if known is not None:
            if known.shape == tensor.shape and np.array_equal(known.codes, tensor.codes):
                return known.name
            tensor = replace(tensor, name=unused_name(tensor.name, self.tensors))
        self.tensors[tensor.name] = tensor
        return tensor.name

    def store_weight(self, stored: ImportedTensor, source: ValueSpec, window: Window, groups: int) -> str:
        """Store the weights of a convolution; the same weights are stored once.

        Args:
            stored: the tensor, (O, C/groups, kh, kw).
            source: the value that the weights are multiplied with.
            window: of the convolution.
            groups: of the convolution.

        Returns:
            The tensor's name in the network.

        Raises:
            IncompatibleWeightOrder: the same integers are stored already, in an order that this convolution cannot read.
        """
        flat = window.kernel == source.height_width and not any(window.pads) and window.dilation == (1, 1)
        reader = (source.kind, stored.shape, groups, window.dilation[1] == 1, flat)
        recipe = stored.recipe
        self.reads += [] if recipe is None else [recipe]
        for name, entry in self.weights.items():
            if entry.reader == reader and _same_source(entry.tensor, stored) and _equal(entry.tensor, stored):
                return name
        known = None if recipe is None else self._find(recipe)
        if recipe is None or known is None:
            name = (
                unused_name(stored.name, self.tensors) if recipe is not None else self.store(stored.as_stored_tensor(stored.name))
            )
        else:
            name, entry = known
            if entry.reader is not None or not np.array_equal(np.sort(stored.positions()), np.arange(recipe.codes.size)):
                raise IncompatibleWeightOrder
        self.tensors[name] = stored.as_stored_tensor(name)
        self.weights[name] = StoredWeight(stored, reader)
        return name

    def store_operand(self, recipe: Recipe, zero: int = 0) -> StoredOperand:
        """Store the integers of a float operator's constant.

        The same integers are stored once.

        Args:
            recipe: how the constant is computed from the integers.
            zero: the integer that means real zero, as which an erased element reads.
        """
        self.reads.append(recipe)
        known = self._find(recipe)
        if known is None:
            name, values = unused_name(recipe.origin, self.tensors), recipe.codes.astype(np.int32)
            point = np.array(np.clip(zero, recipe.encoding.low, recipe.encoding.high), np.int32)
            tensor = ImportedTensor(name, "weight", recipe.encoding, values, zero_point=point, recipe=replace(recipe, steps=()))
            self.tensors[name] = tensor.as_stored_tensor(name)
            self.weights[name] = StoredWeight(tensor, None)
        else:
            name = known[0]
        nested = tuple((step, position, self.store_operand(other)) for step, position, other in recipe.nested)
        return StoredOperand(name, recipe.codes.shape, recipe.codes.dtype, recipe.steps, nested=nested)

    def _find(self, recipe: Recipe) -> tuple[str, StoredWeight] | None:
        """Return the stored tensor that holds the integers of a recipe; None if none does."""
        for name, entry in self.weights.items():
            known = entry.tensor.recipe
            if known is not None and entry.tensor.elements == recipe.codes.size and same_integers(known, recipe):
                return name, entry
        return None

    def _resolve_order(self, operand: StoredOperand) -> StoredOperand:
        """Return the operand with the positions of its integers in the finished tensor."""
        entry = self.weights[operand.tensor]
        if operand.nested:
            nested = tuple((step, position, self._resolve_order(other)) for step, position, other in operand.nested)
            operand = replace(operand, nested=nested)
        if entry.reader is None:
            return operand
        positions = entry.tensor.positions()
        if np.array_equal(positions, np.arange(positions.size)):
            return operand
        order = np.empty(positions.size, np.int64)
        order[positions] = np.arange(positions.size)
        return replace(operand, order=order)

    def resolve_orders(self, layer: Layer) -> Layer:
        """Return the layer with the positions of its operands' integers in the finished tensors."""
        if not isinstance(layer, FloatOperator) or not layer.stored:
            return layer
        return replace(layer, operands=tuple(self._resolve_order(x) if isinstance(x, StoredOperand) else x for x in layer.operands))


def unused_name(name: str, taken: Container[str]) -> str:
    """Return `name`, or `name.2`, `name.3`, … if it is taken."""
    number, result = 2, name
    while result in taken:
        result, number = f"{name}.{number}", number + 1
    return result


def _same_source(a: ImportedTensor, b: ImportedTensor) -> bool:
    return a.recipe is not None and b.recipe is not None and same_integers(a.recipe, b.recipe)


def _equal(a: StoredTensor, b: StoredTensor) -> bool:
    """Return whether two layers read the same numbers from a tensor."""
    pairs = ((a.values, b.values), (a.scale, b.scale), (a.zero_point, b.zero_point))
    return a.encoding == b.encoding and a.block == b.block and all(np.array_equal(x, y) for x, y in pairs)
