"""Weights that float operators read: onnxruntime's outputs, also with bits flipped in the file, and every bit in the memory."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.emulator.flipped import outputs_with_flips, random_cells, with_flipped_initializers
from tests.emulator.models import Array, model, node, run
from weakcell import emulator
from weakcell.emulator import ReadPolicy
from weakcell.emulator.engine.layer_functions import compute
from weakcell.emulator.faults.deployment import reads_per_image
from weakcell.emulator.plan.parameters import new_parameters
from weakcell.emulator.prediction import predict
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import UsageError

Case = tuple[onnx.ModelProto, dict[str, Array], int, frozenset[str]]
"""A network, its inputs, the bits of its weights, and the weights that are stored column by column."""

RNG = np.random.default_rng(41)
IDS = {"ids": TensorProto.INT64}


def int8(*shape: int) -> Array:
    return RNG.integers(-128, 128, shape).astype(np.int8)


def uint8(*shape: int) -> Array:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def scales(*shape: int) -> Array:
    return RNG.uniform(0.005, 0.02, shape).astype(np.float32)


def embedding(axis: int | None) -> Case:
    """DequantizeLinear of a table, per tensor, per row or per column, then Gather and a mean over the tokens."""
    count = () if axis is None else (30, 16)[axis : axis + 1]
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        node("DequantizeLinear", "table s z", "t", **attributes), node("Gather", "t ids", "e"),
        node("ReduceMean", "e", "y", axes=[1], keepdims=0),
    ]  # fmt: skip
    constants = {"table": uint8(30, 16), "s": scales(*count), "z": uint8(*count) if count else np.uint8(9)}
    proto = model(nodes, constants, {"ids": ["N", 7]}, {"y": ["N", 16]}, types=IDS)
    return proto, {"ids": RNG.integers(0, 30, (5, 7))}, 30 * 16 * 8, frozenset()


def gather_then_dequantize() -> Case:
    """Gather of the integers themselves, as onnxruntime quantizes an embedding in its operator form."""
    nodes = [node("Gather", "table ids", "e"), node("DequantizeLinear", "e s z", "y")]
    constants = {"table": int8(20, 8), "s": np.float32(0.02), "z": np.int8(-3)}
    proto = model(nodes, constants, {"ids": ["N", 6]}, {"y": ["N", 6, 8]}, types=IDS)
    return proto, {"ids": RNG.integers(0, 20, (4, 6))}, 20 * 8 * 8, frozenset()


def tied_embedding() -> Case:
    """One table for the embedding and, transposed, for the scores: it lives in the memory once, row by row."""
    nodes = [
        node("DequantizeLinear", "table s", "t"), node("Gather", "t ids", "e"), node("ReduceMean", "e", "m", axes=[1], keepdims=0),
        node("Transpose", "t", "tt", perm=[1, 0]), node("MatMul", "m tt", "y"),
    ]  # fmt: skip
    proto = model(nodes, {"table": int8(24, 12), "s": np.float32(0.01)}, {"ids": ["N", 5]}, {"y": ["N", 24]}, types=IDS)
    return proto, {"ids": RNG.integers(0, 24, (4, 5))}, 24 * 12 * 8, frozenset()


def tied_untransposed() -> Case:
    """One matrix for Gather of its rows and for a MatMul: the order of the MatMul's weights holds for both."""
    nodes = [
        node("DequantizeLinear", "table s", "t"), node("Gather", "t ids", "e"), node("MatMul", "e w", "h"),
        node("MatMul", "h t", "y"),
    ]  # fmt: skip
    constants = {"table": int8(12, 10), "s": np.float32(0.01), "w": floats(10, 12)}
    proto = model(nodes, constants, {"ids": ["N", 5]}, {"y": ["N", 5, 10]}, types=IDS)
    return proto, {"ids": RNG.integers(0, 12, (4, 5))}, 12 * 10 * 8, frozenset({"table"})


def autoencoder() -> Case:
    """A matrix and its transpose in two products."""
    nodes = [
        node("DequantizeLinear", "w s", "wd"), node("MatMul", "x wd", "h"), node("Relu", "h", "r"),
        node("Transpose", "wd", "wt"), node("MatMul", "r wt", "y"),
    ]  # fmt: skip
    proto = model(nodes, {"w": int8(16, 6), "s": np.float32(0.01)}, {"x": ["N", 16]}, {"y": ["N", 16]})
    return proto, {"x": floats(5, 16)}, 16 * 6 * 8, frozenset({"w"})


def integer_and_embedding() -> Case:
    """A table in an integer layer (QDQ on both sides) and, transposed, in a Gather."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "q xs xz", "d"), node("DequantizeLinear", "w s", "wd"),
        node("Gemm", "d wd", "h", transB=1), node("QuantizeLinear", "h ys yz", "hq"), node("DequantizeLinear", "hq ys yz", "hd"),
        node("ArgMax", "hd", "best", axis=1, keepdims=0), node("Gather", "wd best", "y"),
    ]  # fmt: skip
    constants = {
        "xs": np.float32(0.05), "xz": np.uint8(128), "ys": np.float32(0.1), "yz": np.uint8(120), "w": int8(10, 16),
        "s": np.float32(0.01),
    }  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 16]}, {"y": ["N", 16]})
    return proto, {"x": floats(6, 16)}, 10 * 16 * 8, frozenset()


def cast_scale() -> Case:
    nodes = [node("Cast", "w", "f", to=1), node("Mul", "f s", "wd"), node("MatMul", "x wd", "y")]
    proto = model(nodes, {"w": int8(32, 8), "s": scales(8)}, {"x": ["N", 32]}, {"y": ["N", 8]})
    return proto, {"x": floats(5, 32)}, 32 * 8 * 8, frozenset({"w"})


def cast_subtract_scale() -> Case:
    """Zero points and scales of the inputs' axis, which no sum of integers can leave outside."""
    nodes = [node("Cast", "w", "f", to=1), node("Sub", "f z", "g"), node("Mul", "s g", "wd"), node("MatMul", "x wd", "y")]
    constants = {"w": uint8(20, 10), "z": RNG.integers(0, 256, (20, 1)).astype(np.float32), "s": scales(20, 1)}
    proto = model(nodes, constants, {"x": ["N", 20]}, {"y": ["N", 10]})
    return proto, {"x": floats(5, 20)}, 20 * 10 * 8, frozenset()


def cast_scale_offset() -> Case:
    nodes = [node("Cast", "w", "f", to=1), node("Mul", "f s", "g"), node("Add", "g o", "wd"), node("MatMul", "x wd", "y")]
    proto = model(nodes, {"w": int8(20, 10), "s": scales(10), "o": floats(10)}, {"x": ["N", 20]}, {"y": ["N", 10]})
    return proto, {"x": floats(5, 20)}, 20 * 10 * 8, frozenset()


def product_of_three_axes() -> Case:
    """A MatMul with a matrix for every head."""
    nodes = [node("DequantizeLinear", "w s", "wd"), node("MatMul", "x wd", "y")]
    proto = model(nodes, {"w": int8(3, 6, 5), "s": np.float32(0.01)}, {"x": ["N", 3, 4, 6]}, {"y": ["N", 3, 4, 5]})
    return proto, {"x": floats(3, 3, 4, 6)}, 3 * 6 * 5 * 8, frozenset()


def blocks_of_int4() -> Case:
    """DequantizeLinear in blocks along the outputs, which no other lowering takes."""
    codes = RNG.integers(-8, 8, (12, 8)).astype(ml_dtypes.int4)
    nodes = [node("DequantizeLinear", "w s", "wd", axis=1, block_size=4), node("MatMul", "x wd", "y")]
    proto = model(nodes, {"w": codes, "s": scales(12, 2)}, {"x": ["N", 12]}, {"y": ["N", 8]}, opset=21)
    return proto, {"x": floats(4, 12)}, 12 * 8 * 4, frozenset()


def added_table() -> Case:
    """Positions added to a sequence, and a vector added after it."""
    nodes = [
        node("DequantizeLinear", "w s", "wd"), node("Add", "x wd", "h"), node("DequantizeLinear", "v s", "vd"),
        node("Mul", "vd h", "y"),
    ]  # fmt: skip
    constants = {"w": int8(6, 8), "v": int8(8), "s": np.float32(0.02)}
    proto = model(nodes, constants, {"x": ["N", 6, 8]}, {"y": ["N", 6, 8]})
    return proto, {"x": floats(4, 6, 8)}, 6 * 8 * 8 + 8 * 8, frozenset()


def split_projection() -> Case:
    """One matrix cut into three by Split, as exporters write queries, keys and values."""
    nodes = [
        node("DequantizeLinear", "w s", "wd", axis=1), node("Split", "wd cuts", "a b c", axis=1), node("MatMul", "x a", "qa"),
        node("MatMul", "x b", "qb"), node("MatMul", "x c", "qc"), node("Concat", "qc qa qb", "y", axis=1),
    ]  # fmt: skip
    constants = {"w": int8(8, 15), "s": scales(15), "cuts": np.array([4, 5, 6], np.int64)}
    proto = model(nodes, constants, {"x": ["N", 8]}, {"y": ["N", 15]})
    return proto, {"x": floats(4, 8)}, 8 * 15 * 8, frozenset({"w"})


def transposed_integers() -> Case:
    """Transpose before DequantizeLinear."""
    nodes = [
        node("Transpose", "w", "wt", perm=[2, 0, 1]), node("DequantizeLinear", "wt s", "wd", axis=0), node("MatMul", "x wd", "y"),
    ]  # fmt: skip
    proto = model(nodes, {"w": int8(6, 5, 3), "s": scales(3)}, {"x": ["N", 3, 4, 6]}, {"y": ["N", 3, 4, 5]})
    return proto, {"x": floats(3, 3, 4, 6)}, 3 * 6 * 5 * 8, frozenset()


def convolution_of_volumes() -> Case:
    nodes = [node("DequantizeLinear", "w s z", "wd", axis=0), node("Conv", "x wd", "y")]
    constants = {"w": int8(4, 2, 2, 2, 2), "s": scales(4), "z": np.zeros(4, np.int8)}
    proto = model(nodes, constants, {"x": ["N", 2, 3, 4, 4]}, {"y": ["N", 4, 2, 3, 3]})
    return proto, {"x": floats(3, 2, 3, 4, 4)}, 4 * 16 * 8, frozenset()


def einsum() -> Case:
    """A matrix for every head, by Einsum."""
    nodes = [node("DequantizeLinear", "w s", "wd"), node("Einsum", "x wd", "y", equation="bhsd,hde->bhse")]
    proto = model(nodes, {"w": int8(3, 6, 5), "s": np.float32(0.01)}, {"x": ["N", 3, 4, 6]}, {"y": ["N", 3, 4, 5]})
    return proto, {"x": floats(3, 3, 4, 6)}, 3 * 6 * 5 * 8, frozenset()


def convolution_of_signals() -> Case:
    """A grouped 1-D convolution of floats with int8 weights."""
    nodes = [node("DequantizeLinear", "w s z", "wd", axis=0), node("Conv", "x wd b", "y", group=2, strides=[2], pads=[2, 1])]
    constants = {"w": int8(6, 2, 3), "s": scales(6), "z": np.zeros(6, np.int8), "b": floats(6)}
    proto = model(nodes, constants, {"x": ["N", 4, 11]}, {"y": ["N", 6, None]})
    return proto, {"x": floats(3, 4, 11)}, 6 * 2 * 3 * 8, frozenset()


def weight_on_the_left() -> Case:
    nodes = [node("DequantizeLinear", "w s", "wd"), node("MatMul", "wd x", "y")]
    proto = model(nodes, {"w": int8(5, 6), "s": np.float32(0.01)}, {"x": ["N", 6, 4]}, {"y": ["N", 5, 4]})
    return proto, {"x": floats(3, 6, 4)}, 5 * 6 * 8, frozenset()


def bytes_cut_in_halves() -> Case:
    """The lower four bits of each byte by BitwiseAnd, as exporters without int4 write them."""
    nodes = [
        node("BitwiseAnd", "w mask", "low"), node("Cast", "low", "f", to=1), node("Sub", "f z", "g"), node("Mul", "g s", "wd"),
        node("MatMul", "x wd", "y"),
    ]  # fmt: skip
    constants = {"w": uint8(12, 8), "mask": np.uint8(15), "z": np.float32(8), "s": scales(8)}
    proto = model(nodes, constants, {"x": ["N", 12]}, {"y": ["N", 8]}, opset=18)
    return proto, {"x": floats(4, 12)}, 12 * 8 * 8, frozenset()


def cast_to_int32() -> Case:
    """Zero points subtracted from int32."""
    nodes = [
        node("Cast", "w", "i", to=6), node("Sub", "i z", "j"), node("Cast", "j", "f", to=1), node("Mul", "f s", "wd"),
        node("MatMul", "x wd", "y"),
    ]  # fmt: skip
    constants = {"w": uint8(12, 8), "z": RNG.integers(0, 256, (1, 8)).astype(np.int32), "s": scales(8)}
    proto = model(nodes, constants, {"x": ["N", 12]}, {"y": ["N", 8]})
    return proto, {"x": floats(4, 12)}, 12 * 8 * 8, frozenset()


CASES: dict[str, Callable[[], Case]] = {
    "embedding": lambda: embedding(None),
    "embedding per row": lambda: embedding(0),
    "embedding per column": lambda: embedding(1),
    "gather, then dequantize": gather_then_dequantize,
    "tied embedding": tied_embedding,
    "tied, untransposed": tied_untransposed,
    "autoencoder": autoencoder,
    "integer layer and embedding": integer_and_embedding,
    "cast and scale": cast_scale,
    "cast, subtract, scale": cast_subtract_scale,
    "cast, scale, offset": cast_scale_offset,
    "three axes": product_of_three_axes,
    "blocks of int4": blocks_of_int4,
    "added": added_table,
    "split": split_projection,
    "transposed integers": transposed_integers,
    "volumes": convolution_of_volumes,
    "einsum": einsum,
    "signals": convolution_of_signals,
    "on the left": weight_on_the_left,
    "halves of bytes": bytes_cut_in_halves,
    "cast to int32": cast_to_int32,
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_flips(name: str) -> None:
    """All bits live in the memory; flips there give what onnxruntime gives for a file with these bits inverted."""
    proto, inputs, bits, transposed = CASES[name]()
    network = emulator.load(proto)
    assert network.weight_bits == bits
    assert len({t.name for t in network.weights}) == len(network.weights)
    rng = np.random.default_rng(4)
    for policy in (ReadPolicy.LOAD, ReadPolicy.BATCH, ReadPolicy.IMAGE):
        for count in (0, 12):
            flips = random_cells(network, rng, count)
            in_file = cells_of_the_file(proto, flips)
            (wanted,) = run(with_flipped_initializers(proto, in_file, transposed), inputs)
            made = outputs_with_flips(network, inputs, flips, policy)["y"]
            np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


def cells_of_the_file(proto: onnx.ModelProto, flips: dict[str, list[tuple[int, int]]]) -> dict[str, list[tuple[int, int]]]:
    """Flips of the parts of a split matrix (w, w.2, w.3), each output by output, as flips of the whole."""
    if "w.2" not in flips:
        return flips
    inputs = 8
    starts = {"w": 0, "w.2": 4 * inputs, "w.3": 9 * inputs}
    return {"w": [(element + starts[name], bit) for name, cells in flips.items() for element, bit in cells]}


@pytest.mark.parametrize("name", ["tied embedding", "tied, untransposed", "autoencoder"])
def test_a_shared_table_is_read_by_both_layers(name: str) -> None:
    """Once per load; under `image`, once by each of the two layers."""
    network = emulator.load(CASES[name]()[0])
    (tensor,) = network.weights
    assert reads_per_image(network, ReadPolicy.IMAGE, 10, 10)[tensor.name] == 2.0
    assert reads_per_image(network, ReadPolicy.LOAD, 10, 10)[tensor.name] == pytest.approx(0.1)


def test_access_of_a_convolution_of_signals() -> None:
    """A convolution reads its weights output by output; these flips are the same at every read."""
    proto, inputs, _, _ = convolution_of_signals()
    flips = random_cells(emulator.load(proto), np.random.default_rng(1), 12)
    (wanted,) = run(with_flipped_initializers(proto, flips), inputs)
    made = outputs_with_flips(emulator.load(proto), inputs, flips, ReadPolicy.ACCESS)["y"]
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


def test_prediction_knows_these_flips() -> None:
    """The predicted accuracy is the mean over many trials, which an embedding's flips decide."""
    proto, _, _, _ = tied_embedding()
    ids = np.random.default_rng(9).integers(0, 24, (40, 5))
    plan = emulator.compile_plan(emulator.load(proto))
    questions = emulator.prepare_evaluation(plan, {"ids": ids}, run(proto, {"ids": ids})[0].argmax(1))
    placement = emulator.place(plan.network, parse_spec("uniform:ber=0.02"))
    (predicted,) = predict(plan, [placement], questions, samples=60)
    trials = [emulator.run_trial(plan, placement, questions, ReadPolicy.LOAD, trial=t).accuracy for t in range(300)]
    assert 0.5 < np.mean(trials) < 0.99
    assert predicted.accuracy == pytest.approx(np.mean(trials), abs=0.02)


def test_single_uses_of_a_float_operator_are_not_told_apart() -> None:
    """`access` reads a weight for each output; for an operator in float32 it is refused by name."""
    proto, inputs, _, _ = embedding(None)
    with pytest.raises(UsageError, match="table"):
        outputs_with_flips(emulator.load(proto), inputs, {}, ReadPolicy.ACCESS)


def test_erased_elements_read_as_zero() -> None:
    """Real zero is the zero point of the file, also where several steps subtract it."""
    zeros = {name: {t.name: t.erased for t in emulator.load(CASES[name]()[0]).weights} for name in ("embedding", "einsum")}
    assert zeros["embedding"] == {"table": 9}
    assert zeros["einsum"] == {"w": 0}
    nodes = [node("Cast", "w", "f", to=1), node("Sub", "f z", "g"), node("MatMul", "x g", "y")]
    proto = model(nodes, {"w": uint8(3, 6, 5), "z": np.float32(130)}, {"x": ["N", 3, 4, 6]}, {"y": ["N", 3, 4, 5]})
    assert [t.erased for t in emulator.load(proto).weights] == [130]


def test_flips_of_a_shared_table_are_recorded_once() -> None:
    """Under `image` two layers read it alike; a record of the flips names each of them once, and so replays."""
    proto, inputs, _, _ = tied_embedding()
    plan = emulator.compile_plan(emulator.load(proto))
    placement = emulator.place(plan.network, parse_spec("uniform:ber=0.05"))
    deployment = emulator.deploy(plan, placement, ReadPolicy.IMAGE, record=True)
    emulator.outputs_under_faults(plan, inputs, deployment)
    assert deployment.faults is not None
    assert sorted(fault.read for fault in deployment.faults) == [0, 1, 2, 3]


def test_signs_that_drop_out() -> None:
    """A dropped sign of a float operator's binary weight counts as 0."""
    rng = np.random.default_rng(2)
    signs = rng.choice([-1.0, 1.0], (2, 64, 4)).astype(np.float32)
    proto = model([node("MatMul", "x w", "y")], {"w": signs}, {"x": ["N", 2, 3, 64]}, {"y": ["N", 2, 3, 4]})
    plan = emulator.compile_plan(emulator.load(proto))
    parameters = new_parameters(plan)
    cells = np.zeros(8, np.uint64)
    cells[0] = 0b101
    restore = parameters.drop_signs("w", cells)
    x = rng.normal(size=(2, 2, 3, 64)).astype(np.float32)
    (layer,) = plan.network.layers
    dropped = signs.copy()
    dropped.reshape(-1)[[0, 2]] = 0
    np.testing.assert_allclose(compute(layer, [x], parameters), x @ dropped, rtol=1e-5, atol=1e-5)
    restore()
    np.testing.assert_allclose(compute(layer, [x], parameters), x @ signs, rtol=1e-5, atol=1e-5)
