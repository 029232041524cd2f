"""Layer records declare which of their fields a memory can store, and everything that must know a record knows it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import get_args

import pytest

from tests.emulator import reference
from weakcell.emulator.engine import layer_functions
from weakcell.emulator.ir import layers, operators
from weakcell.emulator.ir.layer import Layer, LayerParameters
from weakcell.emulator.ir.layers import ClampedLayer

_NAMES = {**vars(layers), **vars(operators)}
RECORDS = sorted((x for x in _NAMES.values() if isinstance(x, type) and issubclass(x, Layer) and x is not Layer), key=str)


def test_a_record_without_declaration_is_refused_at_its_definition() -> None:
    with pytest.raises(TypeError, match="PARAMETERS"):

        class Silent(Layer):
            weight: str


def test_a_field_that_is_not_declared_is_refused_at_its_definition() -> None:
    with pytest.raises(TypeError, match="zero_point"):

        class Partial(Layer):
            PARAMETERS = LayerParameters(tensors={"weight": "weight"}, of_inputs=())
            weight: str
            zero_point: int


def test_a_declaration_says_what_it_uses_of_its_inputs() -> None:
    with pytest.raises(TypeError, match="of_inputs"):
        LayerParameters(tensors={"weight": "weight"})  # type: ignore[call-arg]


def test_declared_fields_become_names_and_constants() -> None:
    @dataclass(frozen=True, eq=False)
    class Scaled(Layer):
        PARAMETERS = LayerParameters(tensors={"kernel": "weight"}, constants={"gain": "scale"}, of_inputs=(), other=("width",))
        kernel: str
        gain: float
        width: int

    layer = Scaled("name", ("x",), "y", "w", 2.0, 3)
    assert layer.tensor_names() == ("w",)
    assert [(c.name, c.role, c.numbers) for c in layer.constant_fields()] == [("name.gain", "scale", 2.0)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_record_is_computed_by_the_engine_and_by_the_reference(record: type[Layer]) -> None:
    assert record in layer_functions.FUNCTIONS
    assert record in reference.LAYERS
    assert (record in get_args(ClampedLayer)) == ({"low", "high"} <= {field.name for field in fields(record)})
