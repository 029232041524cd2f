"""MatMulNBits and GatherBlockQuantized: onnxruntime's outputs, also with bits flipped in the file, and every bit in the memory."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.emulator.flipped import Cells, outputs_with_flips, random_cells
from tests.emulator.models import Array, model, run
from weakcell import emulator

RNG = np.random.default_rng(63)
Case = tuple[onnx.ModelProto, dict[str, Array]]
INT64 = {"ids": onnx.TensorProto.INT64}


def floats(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def product(
    bits: int, block: int, *, zero: str = "none", grouped: bool = False, inputs: int = 40, biased: bool = False
) -> Callable[[], Case]:
    """Return the maker of a MatMulNBits of a sequence; `zero` says how its zero points are kept."""

    def make() -> Case:
        outputs, blocks = 6, -(-inputs // block)
        constants: dict[str, Array] = {
            "w": RNG.integers(0, 256, (outputs, blocks, block * bits // 8)).astype(np.uint8),
            "s": RNG.uniform(-0.1, 0.1, (outputs * blocks)).astype(np.float32),
        }
        names = ["x", "w", "s", "", "", ""]
        if zero != "none":
            packed = RNG.integers(0, 256, (outputs, -(-blocks * bits // 8))).astype(np.uint8)
            constants["z"] = packed if zero == "packed" else RNG.uniform(0, 2**bits, (outputs, blocks)).astype(np.float32)
            names[3] = "z"
        if grouped:
            constants["g"] = RNG.permutation(np.arange(inputs) // block).astype(np.int32)
            names[4] = "g"
        if biased:
            constants["b"] = floats(outputs)
            names[5] = "b"
        node = helper.make_node(
            "MatMulNBits", names, ["y"], domain="com.microsoft", K=inputs, N=outputs, bits=bits, block_size=block
        )
        proto = model([node], constants, {"x": ["N", 5, inputs]}, {"y": ["N", 5, outputs]}, 21)
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        return proto, {"x": floats(3, 5, inputs)}

    return make


def table(dtype: type, bits: int, *, zero: bool) -> Callable[[], Case]:
    """Return the maker of a GatherBlockQuantized of a table (20, 64)."""

    def make() -> Case:
        low, high = (-8, 8) if dtype is ml_dtypes.int4 else (0, 16 if dtype is ml_dtypes.uint4 else 256)
        width, packs = 64, 8 // bits if dtype is np.uint8 else 1
        constants: dict[str, Array] = {
            "w": RNG.integers(low, high, (20, width // packs)).astype(dtype),
            "s": RNG.uniform(-0.1, 0.1, (20, 4)).astype(np.float32),
        }
        if zero:
            constants["z"] = RNG.integers(low, high, (20, 4 // packs)).astype(dtype)
        attributes = {"block_size": 16, "quantize_axis": 1} | ({"bits": bits} if dtype is np.uint8 else {})
        node = helper.make_node(
            "GatherBlockQuantized", ["w", "ids", "s", *(["z"] if zero else [])], ["y"], domain="com.microsoft", **attributes
        )
        proto = model([node], constants, {"ids": ["N", 7]}, {"y": ["N", 7, width]}, 21, INT64)
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        return proto, {"ids": RNG.integers(0, 20, (3, 7))}

    return make


CASES: dict[str, Callable[[], Case]] = {
    **{f"{bits}_bits_in_blocks_of_{block}": product(bits, block) for bits in (4, 8) for block in (16, 32, 64)},
    "2_bits": product(2, 16, inputs=48),
    "packed_zero_points": product(4, 16, zero="packed"),
    "float_zero_points": product(4, 16, zero="float"),
    "group_index": product(4, 16, grouped=True, inputs=48),
    "group_index_and_zero_points": product(4, 16, grouped=True, zero="float", inputs=64),
    "bias": product(4, 32, zero="packed", biased=True, inputs=64),
    "table_int4": table(ml_dtypes.int4, 4, zero=True),
    "table_uint4": table(ml_dtypes.uint4, 4, zero=True),
    "table_uint4_without_zero_points": table(ml_dtypes.uint4, 4, zero=False),
    "table_packed": table(np.uint8, 4, zero=True),
    "table_packed_without_zero_points": table(np.uint8, 4, zero=False),
    "table_uint8": table(np.uint8, 8, zero=True),
    "table_uint8_without_zero_points": table(np.uint8, 8, zero=False),
}


def with_flipped_bits(proto: onnx.ModelProto, cells: Cells, bits: int, row: int) -> onnx.ModelProto:
    """Return the model with cells (number, bit) of its packed weight `w` inverted.

    Args:
        proto: the model.
        cells: in rows of `row` numbers; what the file has behind them in a row is padding.
        bits: of a number.
        row: numbers that count in a row.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    tensor = next(t for t in changed.graph.initializer if t.name == "w")
    array = numpy_helper.to_array(tensor)
    raw = array.astype(np.int8).view(np.uint8) & 15 if array.dtype in (ml_dtypes.int4, ml_dtypes.uint4) else array
    width = raw.itemsize * 8 if array.dtype == np.uint8 else 4
    rows = np.unpackbits(raw.reshape(-1, 1), axis=1, bitorder="little")[:, :width].reshape(raw.shape[0], -1)
    for element, bit in cells:
        rows[element // row, (element % row) * bits + bit] ^= 1
    codes = np.packbits(rows.reshape(-1, width), axis=1, bitorder="little").reshape(array.shape)
    if array.dtype == ml_dtypes.int4:
        codes = np.where(codes > 7, codes.astype(np.int8) - 16, codes.astype(np.int8))
    tensor.CopyFrom(numpy_helper.from_array(codes.astype(array.dtype), "w"))
    return changed


@pytest.mark.parametrize("kind", CASES)
def test_right_with_and_without_flips(kind: str) -> None:
    proto, fed = CASES[kind]()
    network = emulator.load(proto)
    found = emulator.infer(emulator.compile_plan(network), fed)["y"]
    np.testing.assert_allclose(found, run(proto, fed)[0], rtol=1e-5, atol=1e-5)
    (weight,) = network.weights
    attributes = {a.name: a.i for a in proto.graph.node[0].attribute}
    bits, row = attributes.get("bits", 4), attributes.get("K", 64)
    assert weight.bits == bits * row * (6 if "K" in attributes else 20)
    cells = random_cells(network, RNG, 40)
    faulty = with_flipped_bits(proto, cells[weight.name], bits, row)
    changed = outputs_with_flips(network, fed, cells)["y"]
    assert np.any(changed != found)
    np.testing.assert_allclose(changed, run(faulty, fed)[0], rtol=1e-5, atol=1e-5)


def test_packed_zero_points_with_a_group_index() -> None:
    """They mean what the same zero points as floats mean. onnxruntime 1.32 takes 8 instead of them, so it is no reference here."""
    proto, fed = product(4, 16, grouped=True, zero="packed", inputs=64)()
    as_floats = onnx.ModelProto()
    as_floats.CopyFrom(proto)
    points = next(t for t in as_floats.graph.initializer if t.name == "z")
    packed = numpy_helper.to_array(points)
    points.CopyFrom(numpy_helper.from_array(np.stack([packed & 15, packed >> 4], -1).reshape(6, 4).astype(np.float32), "z"))
    found = emulator.infer(emulator.compile_plan(emulator.load(proto)), fed)["y"]
    np.testing.assert_allclose(found, run(as_floats, fed)[0], rtol=1e-5, atol=1e-5)
