"""Constants that are computed from stored integers: onnxruntime's outputs on a file with the same bits flipped."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.emulator.constant_chains import cells_between, differs, integers_of, random_network, with_flips
from tests.emulator.flipped import outputs_with_flips
from tests.emulator.models import Array, model, node, run
from weakcell import emulator
from weakcell.memmodels.errors import ModelError

RNG = np.random.default_rng(18)
F = np.float32


def int8(*shape: int) -> Array:
    return RNG.integers(-100, 100, shape).astype(np.int8)


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_random_chains(first: int) -> None:
    assert {seed: text for seed in range(first, first + 20) if (text := differs(seed))} == {}


def test_most_integers_are_in_a_memory() -> None:
    """The random networks would agree as well if nothing were placed."""
    placed = total = 0
    for seed in range(30):
        proto, _ = random_network(seed)
        total += sum(8 * len(t.raw_data) for _, t in integers_of(proto) if len(t.raw_data) >= 36)
        placed += emulator.load(proto, integer_input=False).weight_bits
    assert placed > 0.6 * total


def compare(proto: onnx.ModelProto, inputs: dict[str, Array], kept: tuple[str, ...] = ()) -> emulator.Network:
    """Compare the first output with flips in every tensor of integers but `kept`; return the network."""
    network = emulator.load(proto, integer_input=False)
    changed = with_flips(proto, kept, np.random.default_rng(3), 0.1)
    flips = cells_between(network, emulator.load(changed, integer_input=False))
    assert all(flips.values())
    got = next(iter(outputs_with_flips(network, inputs, flips).values()))
    np.testing.assert_allclose(got, run(changed, inputs)[0], rtol=1e-5, atol=1e-5)
    return network


def test_equal_weights_that_are_quantized_again() -> None:
    """What torch's older exporter and onnxruntime write for equal weights of two normalizations: one flip changes both."""
    nodes = [
        node("DequantizeLinear", "w s z", "d"), node("Identity", "d", "d2"), node("QuantizeLinear", "d2 s2 z2", "q"),
        node("DequantizeLinear", "q s2 z2", "e"), node("LayerNormalization", "x d", "a"), node("LayerNormalization", "a e", "y"),
    ]  # fmt: skip
    constants = {"w": int8(16), "s": F(0.02), "z": np.int8(0), "s2": F(0.015), "z2": np.uint8(110)}
    proto = model(nodes, constants, {"x": ["N", 16]}, {"y": ["N", 16]})
    network = compare(proto, {"x": RNG.normal(size=(5, 16)).astype(F)}, ("z", "z2"))
    assert [tensor.name for tensor in network.weights] == ["w"]


def test_the_same_scale_again_changes_nothing() -> None:
    """A matrix that is quantized again with its own scale stays the weight of an integer layer."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "q xs xz", "d"), node("DequantizeLinear", "w s z", "real"),
        node("QuantizeLinear", "real s z", "again"), node("DequantizeLinear", "again s z", "m"), node("MatMul", "d m", "y"),
    ]  # fmt: skip
    constants = {"w": int8(8, 5), "s": F(2**-6), "z": np.int8(1), "xs": F(2**-4), "xz": np.uint8(128)}
    proto = model(nodes, constants, {"x": ["N", 8]}, {"y": ["N", 5]})
    network = compare(proto, {"x": RNG.normal(size=(5, 8)).astype(F)}, ("z", "xz"))
    assert type(network.layers[1]).__name__ == "Convolution"


def test_a_part_and_the_whole() -> None:
    """Rows of a matrix in one product, all of it in a later one: the same bits."""
    nodes = [
        node("DequantizeLinear", "w s", "d"), node("Slice", "d from to axis", "part"), node("MatMul", "x part", "a"),
        node("MatMul", "a d", "y"),
    ]  # fmt: skip
    constants = {"w": int8(8, 8), "s": F(0.01), "from": np.array([0]), "to": np.array([4]), "axis": np.array([0])}
    proto = model(nodes, constants, {"x": ["N", 4]}, {"y": ["N", 8]})
    network = compare(proto, {"x": RNG.normal(size=(5, 4)).astype(F)})
    assert network.weight_bits == 8 * 64


def test_every_trip_of_a_loop_reads_the_same_integers() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(int8(6, 6), "w")),
            node("DequantizeLinear", "w s", "d"), node("MatMul", "h d", "next"), node("Identity", "going", "again"),
        ],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, ()), ("going", 9, ()), ("h", 1, ("N", 6)))],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("again", 9, ()), ("next", 1, ("N", 6)))],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["trips", "true", "x"], ["y"], body=body)]
    constants = {"s": F(0.02), "trips": np.array(3), "true": np.array(True)}
    proto = model(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 6]})
    network = compare(proto, {"x": RNG.normal(size=(4, 6)).astype(F)})
    assert network.weight_bits == 8 * 36 == sum(tensor.bits for tensor in network.weights)
    assert not any(entry.name == "w" for entry in network.unplaced)


def test_zero_points_that_are_weights() -> None:
    """Integers that one node reads as zero points and another as a weight err in both."""
    nodes = [
        node("DequantizeLinear", "w s z", "d", axis=1), node("MatMul", "x d", "a"), node("DequantizeLinear", "z t", "row"),
        node("Add", "a row", "y"),
    ]  # fmt: skip
    constants = {"w": int8(6, 6), "s": np.full(6, F(0.02)), "z": int8(6), "t": F(0.1)}
    network = compare(model(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 6]}), {"x": RNG.normal(size=(4, 6)).astype(F)})
    assert network.weight_bits == 8 * 42


def test_indices_that_are_weights_are_refused() -> None:
    """Errors in a memory must not choose which rows a layer reads: no layer has such indices."""
    nodes = [
        node("DequantizeLinear", "w s", "d"), node("MatMul", "x d", "a"), node("Cast", "w", "i", to=TensorProto.INT64),
        node("Gather", "a i", "y", axis=1),
    ]  # fmt: skip
    constants = {"w": np.abs(int8(6, 6)) % 6, "s": F(0.02)}
    with pytest.raises(ModelError, match="'w'"):
        emulator.load(model(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 6, 6]}))


def test_a_quantizer_of_qonnx_behind_integers_of_the_file_is_refused() -> None:
    quant = helper.make_node("Quant", ["d", "t", "zero", "bits"], ["m"], domain="qonnx.custom_op.general", signed=1, narrow=0)
    nodes = [node("DequantizeLinear", "w s", "d"), quant, node("MatMul", "x m", "y")]
    constants = {"w": int8(6, 6), "s": F(0.02), "t": F(0.1), "zero": F(0), "bits": F(4)}
    proto = model(nodes, constants, {"x": ["N", 6]}, {"y": ["N", 6]})
    proto.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    with pytest.raises(ModelError, match="'w'"):
        emulator.load(proto)


def test_types() -> None:
    """The generator flips every type of integers that it writes."""
    types = {t.data_type for seed in range(30) for _, t in integers_of(random_network(seed)[0])}
    assert types == {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16}
