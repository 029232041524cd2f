"""The base of all layer records, and the declaration of what a memory can store of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from weakcell.emulator.ir.values import Kind, Role


@dataclass(frozen=True, kw_only=True)
class LayerParameters:
    """Declaration of the fields of a layer record: which of them a memory can store.

    Attributes:
        tensors: fields that name a StoredTensor (or None), with the role of that tensor.
        constants: fields that hold numbers, with their role when a memory stores them. Their order is the order in the memory.
        of_inputs: which quantization parameters of its inputs the layer computes with. A memory can store them, too.
        other: all other fields. No memory stores them: they are code, or records that declare their own parameters.
    """

    tensors: Mapping[str, Role] = field(default_factory=dict)
    constants: Mapping[str, Role] = field(default_factory=dict)
    of_inputs: tuple[Literal["zero_point", "scale"], ...]
    other: tuple[str, ...] = ()


class LayerConstantField(NamedTuple):
    """One constant of a layer.

    Attributes:
        attribute: the field of the record.
        step: the index of the step that the constant belongs to, None if it belongs to the layer.
        name: the name of the stored tensor.
        role: the role of the stored tensor.
        numbers: the fault-free value.
    """

    attribute: str
    step: int | None
    name: str
    role: Role
    numbers: Any


@dataclass(frozen=True, eq=False)
class Layer:
    """Base of all layer records.

    Every subclass declares all its fields in PARAMETERS; a field that is missing there is a TypeError at import.

    Attributes:
        READS: the kinds of value that the layer can read. An importer may give it no other kind.
        PARAMETERS: which of its own fields a memory can store.
        name: the name for people, usually that of the ONNX node.
        inputs: names of the values that the layer reads.
        output: name of the value that the layer makes.
    """

    READS: ClassVar[tuple[Kind, ...]] = ("float",)
    PARAMETERS: ClassVar[LayerParameters]
    name: str
    inputs: tuple[str, ...]
    output: str

    def __init_subclass__(cls) -> None:
        """Check that the class declares all its fields in PARAMETERS."""
        super().__init_subclass__()
        if "PARAMETERS" not in cls.__dict__:
            raise TypeError(f"{cls.__name__} must declare PARAMETERS: which of its fields a memory can store")
        declared = [*cls.PARAMETERS.tensors, *cls.PARAMETERS.constants, *cls.PARAMETERS.other]
        fields = [name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)]
        if sorted(declared) != sorted(fields):
            raise TypeError(f"{cls.__name__}.PARAMETERS declares {sorted(declared)}, and its fields are {sorted(fields)}")

    def tensor_names(self, *roles: Role) -> tuple[str, ...]:
        """Return the names of the stored tensors that the layer reads.

        Only of these roles, if any are given.
        """
        fields = (getattr(self, field) for field, role in self.PARAMETERS.tensors.items() if not roles or role in roles)
        return tuple(name for name in fields if name is not None)

    def constant_fields(self) -> Iterator[LayerConstantField]:
        """Yield the layer's own constants that a memory can store, in their order there."""
        for attribute, role in self.PARAMETERS.constants.items():
            numbers = getattr(self, attribute)
            if numbers is not None:
                yield LayerConstantField(attribute, None, f"{self.name}.{attribute}", role, numbers)
