"""Data that do not fit: one paragraph that says what was asked, what was found and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.emulator.small import INT8, RandomNetwork, pixels, small_bnn, small_qnn
from tests.emulator.test_run import two_in_two_out
from weakcell.emulator import ReadPolicy, compile_plan, deploy, infer, outputs_under_faults, place, prepare_evaluation
from weakcell.emulator.ir.values import SIGN1
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import InputError, ModelError

BNN, QNN = small_bnn(), small_qnn()


def refused(network: Any, inputs: dict[str, Any], kind: type[InputError] = InputError, **more: Any) -> str:
    with pytest.raises(kind) as error:
        infer(compile_plan(network), inputs, **more)
    text = str(error.value)
    assert "\n" not in text
    assert error.value.exit_code == kind.exit_code
    return text


def bnn_pixels(value: Any) -> dict[str, Any]:
    x = pixels(BNN, 3)["x"]
    x[1, 1, 2, 2] = value
    return {"x": x}


def test_a_missing_input_is_named() -> None:
    text = refused(BNN, {"y": np.zeros((1, 2, 6, 5))})
    assert "Input 'x' of small" in text
    assert "the data have y" in text
    assert "the data have nothing" in refused(BNN, {})


@pytest.mark.parametrize(
    "shape", [(), (3,), (3, 59), (3, 2, 6, 6), (2, 6, 5), (3, 6, 5, 2), (3, 5, 6, 2), (3, 2, 5, 6), (60,), (3, 4, 15)], ids=str
)
def test_another_shape(shape: tuple[int, ...]) -> None:
    """Also where the number of pixels is right and their order cannot be: channels last, height and width exchanged."""
    text = refused(BNN, {"x": np.zeros(shape)})
    assert "shape (n, 2, 6, 5)" in text
    assert f"the data have shape {shape}" in text


@pytest.mark.parametrize("shape", [(3, 60), (3, 2, 1, 6, 5), (3, 2, 6, 5, 1)], ids=str)
def test_shapes_that_mean_the_same(shape: tuple[int, ...]) -> None:
    x = pixels(BNN, 3)["x"]
    plan = compile_plan(BNN)
    for name, made in infer(plan, {"x": x.reshape(shape)}).items():
        np.testing.assert_array_equal(made, infer(plan, {"x": x})[name])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (128, "128"), (-129, "-129"), (1e30, "1e+30")],
)
def test_values_that_are_no_pixels(value: float, shown: str) -> None:
    text = refused(BNN, bnn_pixels(value))
    assert f"values like {shown}. " in text
    assert "integer" in text


def test_limits_of_every_integer_type() -> None:
    for dtype, low, high in (("uint8", 0, 255), ("int8", -128, 127), ("int32", -32768, 32767)):
        d = RandomNetwork(np.random.default_rng(0))
        network = d.network(d.dense(d.input("x", (3,), dtype), 2, SIGN1 if dtype == "int8" else INT8))
        weights = network.tensors["c0.w"].values.reshape(2, 3)
        x = np.array([[low, high, 0], [high, low, 1]])
        np.testing.assert_array_equal(infer(compile_plan(network), {"x": x})["c0.acc"], x @ weights.T)
        for value in (low - 1, high + 1):
            assert f"values like {value:g}. " in refused(network, {"x": np.array([[0, value, 0]])})


@pytest.mark.parametrize(
    "x", [np.full((2, 60), "7"), np.full((2, 60), 1j), np.full((2, 60), None)], ids=["text", "complex", "objects"]
)
@pytest.mark.parametrize("network", [BNN, QNN], ids=["bnn", "qnn"])
def test_types_that_are_no_numbers(network: Any, x: np.ndarray) -> None:
    size = int(np.prod(network.values["x"].shape))
    text = refused(network, {"x": np.resize(x, (2, size))})
    assert f"of type {x.dtype}" in text


def test_different_numbers_of_images() -> None:
    network = two_in_two_out()
    x = pixels(network, 4)
    text = refused(network, {**x, "right": x["right"][:3]})
    assert "4 in left, 3 in right" in text


def test_unknown_probes() -> None:
    text = refused(BNN, pixels(BNN, 1), ModelError, probe=["logits"])
    assert "Probing 'logits'" in text
    assert "t1" in text


def test_runs_under_faults_and_questions_look_at_the_data_too() -> None:
    plan = compile_plan(BNN)
    with pytest.raises(InputError):
        outputs_under_faults(plan, bnn_pixels(0.5), deploy(plan, place(BNN, parse_spec("uniform:ber=0")), ReadPolicy.LOAD))
    with pytest.raises(InputError):
        prepare_evaluation(plan, bnn_pixels(np.nan))


def test_float_inputs_may_be_anything_that_quantizes() -> None:
    """QuantizeLinear saturates what is too large and takes NaN for the lowest code, as onnxruntime does."""
    x = pixels(QNN, 2)["x"]
    x[0, 0, 0, :4] = np.nan, np.inf, -np.inf, 3e38
    codes = infer(compile_plan(QNN), {"x": x}, ["q0"])["q0"]
    np.testing.assert_array_equal(codes[0, 0, 0, :4], [0, 255, 0, 255])
