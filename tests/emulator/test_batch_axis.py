"""Networks whose tensors do not have the batch first: folded, moved, added, dropped; compared with onnxruntime image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import weakcell
from tests.emulator.models import Array, model, node, run
from weakcell.memmodels.errors import InputError, ModelError

F = np.float32
HEADS, LENGTH, WIDE = 3, 5, 12


class Graph:
    """Nodes and constants under construction."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.nodes, self.constants = np.random.default_rng(seed), list[onnx.NodeProto](), dict[str, Array]()

    def name(self) -> str:
        """Return a new name."""
        return f"t{len(self.nodes)}_{len(self.constants)}"

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        """Add a constant and return its name."""
        name = self.name()
        self.constants[name] = np.asarray(value, dtype)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = self.name()
        self.nodes.append(node(kind, " ".join(x or "-" for x in inputs), name, **attributes))
        return name

    def weight(self, *shape: int) -> str:
        """Add an int8 weight with a scale that is a power of two, and return its floats."""
        codes = self.const(self.rng.integers(-100, 100, shape), np.int8)
        return self.op("DequantizeLinear", codes, self.const(2.0**-9, F), self.const(0, np.int8))

    def qdq(self, x: str, scale: float = 1 / 32) -> str:
        """Quantize to uint8 and back."""
        s, z = self.const(scale, F), self.const(128, np.uint8)
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, s, z), s, z)

    def dense(self, x: str, inner: int, outer: int) -> str:
        """Add a quantized matrix product with a bias."""
        product = self.op("MatMul", self.qdq(x), self.weight(inner, outer))
        return self.op("Add", product, self.const(self.rng.normal(size=outer), F))

    def done(self, y: str, shape: list[Any], x: list[Any], opset: int = 17) -> onnx.ModelProto:
        """Return the model with `y` as its output of the name `out`."""
        self.nodes.append(node("Identity", y, "out"))
        return model(self.nodes, self.constants, {"x": x}, {"out": shape}, opset)


def compare(proto: onnx.ModelProto, x: Array, axis: int = 0, out_axis: int = 0) -> None:
    """Compare with onnxruntime, one image at a time. `axis` and `out_axis` count images in the file."""
    images = np.split(x, x.shape[axis], axis)
    want = np.concatenate([run(proto, {"x": image})[0] for image in images], out_axis)
    got = weakcell.infer(proto, x)["out"]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)


def signal(*shape: int, seed: int = 1) -> Array:
    """Return normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(F)


# ── heads in the batch, as the exporters of torch write attention ───────────────────────────────────


def heads(g: Graph, x: str, fold: str) -> str:
    """Return attention over heads that are folded into the batch: by constants, or by what Shape says."""

    def split(x: str) -> str:
        if fold == "constants":
            four, three = g.const([-1, LENGTH, HEADS, WIDE // HEADS]), g.const([-1, LENGTH, WIDE // HEADS])
        else:
            batch = g.op("Gather", g.op("Shape", "x"), g.const(0), axis=0)
            one = g.op("Unsqueeze", batch, g.const([0]))
            many = g.op("Unsqueeze", g.op("Mul", batch, g.const(HEADS)), g.const([0]))
            four = g.op("Concat", one, g.const([LENGTH, HEADS, -1]), axis=0)
            three = g.op("Concat", many, g.const([LENGTH, WIDE // HEADS]), axis=0)
        return g.op("Reshape", g.op("Transpose", g.op("Reshape", x, four), perm=[0, 2, 1, 3]), three)

    q, k, v = (split(g.dense(x, WIDE, WIDE)) for _ in range(3))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1]))
    mask = np.triu(np.full((1, LENGTH, LENGTH), -30.0), 1)
    mixed = g.op("MatMul", g.op("Softmax", g.op("Add", scores, g.const(mask, F)), axis=-1), v)
    mixed = g.op("Reshape", mixed, g.const([-1, HEADS, LENGTH, WIDE // HEADS]))
    return g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.const([-1, LENGTH, WIDE]))


@pytest.mark.parametrize("fold", ["constants", "shapes"])
def test_heads_are_folded_into_the_batch(fold: str) -> None:
    g = Graph()
    proto = g.done(heads(g, "x", fold), ["N", LENGTH, WIDE], ["N", LENGTH, WIDE])
    assert weakcell.load(proto).weight_bits == 3 * WIDE * WIDE * 8
    compare(proto, signal(4, LENGTH, WIDE))


# ── the batch somewhere else ──────────────────────────────────────────────────────────────────────────


def rows_of_a_gemm(g: Graph) -> str:
    flat = g.op("Reshape", g.qdq("x"), g.const([-1, WIDE]))
    total = g.op("Gemm", flat, g.weight(7, WIDE), g.const(g.rng.normal(size=7), F), transB=1)
    return g.op("Reshape", total, g.const([-1, LENGTH, 7]))


def time_first(g: Graph) -> str:
    turned = g.op("Transpose", "x", perm=[1, 0, 2])
    return g.op("Transpose", g.op("Relu", g.dense(turned, WIDE, 7)), perm=[1, 0, 2])


def batch_last(g: Graph) -> str:
    turned = g.op("Transpose", "x", perm=[1, 2, 0])
    turned = g.op("MatMul", g.weight(7, WIDE), g.qdq(turned))
    return g.op("Transpose", g.op("Add", turned, g.const(g.rng.normal(size=(7, 1)), F)), perm=[2, 0, 1])


def axis_added(g: Graph) -> str:
    wide = g.op("Unsqueeze", "x", g.const([0]))
    return g.op("Squeeze", g.op("Softmax", g.dense(wide, WIDE, 7), axis=2), g.const([0]))


def frames_in_the_batch(g: Graph) -> str:
    images = g.op("Reshape", g.qdq("x"), g.const([-1, 1, 3, WIDE // 3]))
    images = g.op("Conv", images, g.weight(4, 1, 3, 3), pads=[1, 1, 1, 1])
    return g.op("Reshape", g.op("GlobalAveragePool", images), g.const([-1, LENGTH, 4]))


def moves_on_folded(g: Graph) -> str:
    folded = g.op("Reshape", "x", g.const([-1, WIDE]))
    parts = [g.op("Slice", folded, g.const([a]), g.const([a + 6]), g.const([1])) for a in (0, 6)]
    joined = g.op("Concat", parts[1], parts[0], g.const(g.rng.normal(size=(LENGTH, 2)), F), axis=1)
    padded = g.op("Pad", joined, g.const([0, 1, 0, 1]), g.const(0.5, F))
    picked = g.op("Gather", padded, g.const([3, 1, 2, 0]), axis=1)
    tiled = g.op("Tile", picked, g.const([1, 2]))
    return g.op("Reshape", g.op("CumSum", tiled, g.const(1)), g.const([-1, LENGTH, 8]))


def reductions_on_folded(g: Graph) -> str:
    folded = g.op("Reshape", "x", g.const([-1, 3, 4]))
    total = g.op("ReduceSum", folded, g.const([2]), keepdims=0)
    largest = g.op("ReduceMax", folded, axes=[2], keepdims=0)
    best = g.op("Cast", g.op("ArgMax", folded, axis=2, keepdims=0), to=1)
    return g.op("Reshape", g.op("Sum", total, largest, best), g.const([-1, LENGTH, 3]))


def class_token(g: Graph) -> str:
    batch = g.op("Slice", g.op("Shape", "x"), g.const([0]), g.const([1]))
    shape = g.op("Concat", batch, g.const([1, WIDE]), axis=0)
    token = g.op("Expand", g.const(g.rng.normal(size=(1, 1, WIDE)), F), shape)
    both = g.op("Concat", token, "x", axis=1)
    return g.op("Gather", g.dense(both, WIDE, 7), g.const([0]), axis=1)


def masks_from_shapes(g: Graph) -> str:
    """Range, ConstantOfShape, Equal, Where, ScatterND and GatherND on sizes only, as exporters write masks."""
    shape = g.op("Shape", "x")
    length = g.op("Squeeze", g.op("Gather", shape, g.const([1]), axis=0), g.const([0]))
    count = g.op("Squeeze", g.op("Gather", shape, g.const([0]), axis=0), g.const([0]))
    rows = g.op("Range", g.const(0), length, g.const(1))
    late = g.op("Greater", g.op("Unsqueeze", rows, g.const([0])), g.op("Unsqueeze", rows, g.const([1])))
    full = g.op("ConstantOfShape", g.op("Concat", g.const([1]), g.op("Unsqueeze", length, g.const([0])), axis=0))
    bias = g.op("Where", late, g.const(-1.0, F), g.op("Expand", full, g.op("Shape", late)))
    images = g.op("Range", g.const(0), count, g.const(1))
    chosen = g.op("Concat", g.op("Unsqueeze", images, g.const([1])), g.op("Unsqueeze", images, g.const([1])), axis=1)
    moved = g.op("MatMul", bias, "x")
    return g.op("GatherND", moved, g.op("Mul", chosen, g.const([[1, 0]])))


SHAPES: dict[str, tuple[Callable[[Graph], str], list[Any]]] = {
    "rows of a Gemm": (rows_of_a_gemm, ["N", LENGTH, 7]),
    "time first": (time_first, ["N", LENGTH, 7]),
    "batch last": (batch_last, ["N", LENGTH, 7]),
    "axis added": (axis_added, ["N", LENGTH, 7]),
    "frames in the batch": (frames_in_the_batch, ["N", LENGTH, 4]),
    "moves on folded": (moves_on_folded, ["N", LENGTH, 8]),
    "reductions on folded": (reductions_on_folded, ["N", LENGTH, 3]),
    "class token": (class_token, ["N", 1, 7]),
    "masks from shapes": (masks_from_shapes, ["N", WIDE]),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_the_batch_is_not_first(kind: str) -> None:
    make, shape = SHAPES[kind]
    g = Graph()
    compare(g.done(make(g), shape, ["N", LENGTH, WIDE]), signal(4, LENGTH, WIDE))


def test_a_file_of_one_image_computes_along_the_first_axis() -> None:
    g = Graph()
    y = g.op("Add", g.op("ReduceMean", "x", axes=[0], keepdims=1), g.op("Softmax", "x", axis=0))
    compare(g.done(g.dense(y, WIDE, 7), [1, 7], [1, WIDE]), signal(3, WIDE))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "Gather"])
def test_a_batch_of_several_does_not(op: str) -> None:
    g = Graph()
    attributes: dict[str, Any] = {"ReduceMean": {"axes": [0]}, "ReduceSum": {}, "Gather": {"axis": 0}}[op]
    y = g.op(op, "x", *([g.const([0])] if op != "ReduceMean" else []), **attributes)
    with pytest.raises(ModelError, match="along the batch"):
        weakcell.load(g.done(y, [1, WIDE], ["N", WIDE]))


# ── inputs and outputs with the batch elsewhere ───────────────────────────────────────────────────────


def test_the_batch_of_input_and_output_is_the_second_axis() -> None:
    g = Graph()
    proto = g.done(g.dense("x", WIDE, 7), [LENGTH, "N", 7], [LENGTH, "N", WIDE])
    compare(proto, signal(LENGTH, 4, WIDE), 1, 1)


@pytest.mark.parametrize("declared", [[7, "N"], ["N", 7]])
def test_the_output_is_transposed(declared: list[Any]) -> None:
    """Whatever shape the file declares."""
    g = Graph()
    compare(g.done(g.op("Transpose", g.dense("x", WIDE, 7), perm=[1, 0]), declared, ["N", WIDE]), signal(4, WIDE), 0, 1)


def test_heads_leave_the_network_folded() -> None:
    g = Graph()
    y = g.op("Reshape", g.dense("x", WIDE, 6), g.const([-1, 6]))
    compare(g.done(y, ["M", 6], ["N", LENGTH, WIDE]), signal(4, LENGTH, WIDE))


def test_images_in_another_order_get_an_axis_of_their_own() -> None:
    """With time first, the rows of several images would alternate; one image is as onnxruntime has it."""
    g = Graph()
    y = g.op("Reshape", g.op("Transpose", g.dense("x", WIDE, 6), perm=[1, 0, 2]), g.const([-1, 6]))
    proto, x = g.done(y, ["M", 6], ["N", LENGTH, WIDE]), signal(3, LENGTH, WIDE)
    alone = [run(proto, {"x": x[i : i + 1]})[0] for i in range(3)]
    np.testing.assert_allclose(weakcell.infer(proto, x[:1])["out"], alone[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(weakcell.infer(proto, x)["out"], np.stack(alone), rtol=1e-5, atol=1e-5)


def test_a_number_for_each_image() -> None:
    g = Graph()
    proto, x = g.done(g.op("ReduceSum", g.dense("x", WIDE, 7), keepdims=0), [], [1, WIDE]), signal(3, WIDE)
    alone = [run(proto, {"x": x[i : i + 1]})[0] for i in range(3)]
    assert weakcell.infer(proto, x[:1])["out"].shape == ()
    np.testing.assert_allclose(weakcell.infer(proto, x)["out"], alone, rtol=1e-5)


@pytest.mark.parametrize("batch", [4, 6])
def test_a_fixed_batch_in_reshapes(batch: int) -> None:
    g = Graph()
    folded = g.op("Reshape", g.dense("x", WIDE, WIDE), g.const([batch * HEADS, -1, WIDE // HEADS]))
    y = g.op("Reshape", g.op("Softmax", folded, axis=-1), g.const([batch, LENGTH, WIDE]))
    proto, x = g.done(y, [batch, LENGTH, WIDE], [batch, LENGTH, WIDE]), signal(batch, LENGTH, WIDE)
    np.testing.assert_allclose(weakcell.infer(proto, x)["out"], run(proto, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_a_fixed_batch_where_several_numbers_may_be_it() -> None:
    """Three images of 3 * HEADS positions, positions first: [3 * HEADS, 3 * HEADS, …] has the batch in its second number."""
    g, length = Graph(), 3 * HEADS
    first = g.op("Transpose", g.dense("x", WIDE, WIDE), perm=[1, 0, 2])
    folded = g.op("Reshape", first, g.const([length, 3 * HEADS, WIDE // HEADS]))
    soft = g.op("Softmax", g.op("Transpose", folded, perm=[1, 0, 2]), axis=-1)
    y = g.op("Transpose", g.op("Reshape", soft, g.const([3, HEADS, length, WIDE // HEADS])), perm=[0, 2, 1, 3])
    y = g.op("Add", g.op("Reshape", y, g.const([3, length, WIDE])), "x")
    proto, x = g.done(y, [3, length, WIDE], [3, length, WIDE]), signal(3, length, WIDE)
    np.testing.assert_allclose(weakcell.infer(proto, x)["out"], run(proto, {"x": x})[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last", [-1, WIDE])
def test_a_fixed_batch_with_sizes_from_shapes(last: int) -> None:
    """The sizes of a Reshape follow from a tensor's shape, which counts all images: heads folded with the batch, then back."""
    g = Graph()
    y = g.dense("x", WIDE, WIDE)
    size = g.op("Shape", y)
    count, length = (g.op("Slice", size, g.const([i]), g.const([i + 1]), g.const([0])) for i in range(2))
    folded = g.op("Concat", g.op("Mul", count, g.const([HEADS])), length, g.const([-1]), axis=0)
    soft = g.op("Softmax", g.op("Reshape", y, folded), axis=1)
    y = g.op("Reshape", soft, g.op("Concat", g.op("Slice", size, g.const([0]), g.const([2])), g.const([last]), axis=0))
    proto, x = g.done(y, [3, LENGTH, WIDE], [3, LENGTH, WIDE]), signal(3, LENGTH, WIDE)
    np.testing.assert_allclose(weakcell.infer(proto, x)["out"], run(proto, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_a_fixed_batch_that_cannot_be_told() -> None:
    """Sums over positions move the batch out of sight: then the file is refused."""
    g = Graph()
    y = g.op("ReduceSum", g.op("Transpose", "x", perm=[1, 0, 2]), g.const([2]), keepdims=0)
    y = g.op("Reshape", y, g.const([LENGTH * 2, 2, 1]))
    proto = g.done(g.op("Identity", y), [LENGTH * 2, 2, 1], [2, LENGTH * 2, WIDE])
    with pytest.raises(weakcell.ModelError, match="has the batch of 2 cannot be told"):
        weakcell.infer(proto, signal(2, LENGTH * 2, WIDE))


# ── open sizes ────────────────────────────────────────────────────────────────────────────────────────


def open_sizes() -> onnx.ModelProto:
    """Return a network for images of any height and width."""
    g = Graph()
    y = g.op("Conv", g.qdq("x"), g.weight(4, 2, 3, 3), pads=[1, 1, 1, 1])
    return g.done(g.qdq(g.op("Relu", y)), ["N", 4, "height", "width"], ["N", 2, "height", "width"])


@pytest.mark.parametrize("size", [(6, 7), (9, 4)])
def test_data_give_open_sizes(size: tuple[int, int]) -> None:
    compare(open_sizes(), signal(3, 2, *size))


def test_the_first_open_size_is_not_the_batch() -> None:
    g = Graph()
    y = g.op("ReduceMax", g.dense("x", WIDE, 7), axes=[0], keepdims=0)
    proto, x = g.done(y, [7], ["length", WIDE]), signal(9, WIDE)
    np.testing.assert_allclose(weakcell.infer(proto, x)["out"], run(proto, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_sizes_are_given_by_name() -> None:
    network = weakcell.load(open_sizes(), shapes={"height": 8, "width": 5})
    assert network.values["x"].shape == (2, 8, 5)
    with pytest.raises(ModelError, match="--shape height="):
        weakcell.load(open_sizes())
    with pytest.raises(InputError, match="height, width"):
        weakcell.load(open_sizes(), shapes={"depth": 3})
    summary = weakcell.inspect(open_sizes(), shapes={"height": 8})
    assert (summary.layers.weight_bits, dict(summary.assumed)) == (4 * 2 * 9 * 8, {"width": 32})
    assert "width = 32 (assumed)" in summary.caption
