"""Damaged, hostile and unsupported models: one ModelError each, within seconds of CPU time, with what to do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.emulator.models import model, node
from weakcell.emulator.importer import load
from weakcell.memmodels.errors import InputError, ModelError

F = np.float32


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """CPU time of the process: wall-clock time depends on what else runs."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 5


def qdq(**changes: object) -> onnx.ModelProto:
    """x -> Q -> DQ -> Conv(int8 weights, int32 bias) -> Q -> DQ -> y, with some constants replaced."""
    rng = np.random.default_rng(0)
    constants = {
        "sx": F(0.1), "zx": np.uint8(128), "w": rng.integers(-9, 9, (4, 2, 3, 3)).astype(np.int8), "sw": np.full(4, 0.01, F),
        "zw": np.zeros(4, np.int8), "b": np.arange(4, dtype=np.int32), "sb": F(0.1) * np.full(4, 0.01, F),
        "zb": np.zeros(4, np.int32), "sy": F(0.2), "zy": np.uint8(7), **changes,
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "f"),
        node("DequantizeLinear", "w sw zw", "wf", axis=0), node("DequantizeLinear", "b sb zb", "bf", axis=0),
        node("Conv", "f wf bf", "c"), node("QuantizeLinear", "c sy zy", "r"), node("DequantizeLinear", "r sy zy", "y"),
    ]  # fmt: skip
    return model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 2, 5, 5]}, {"y": ["N", 4, 3, 3]})


def test_the_valid_model_is_valid() -> None:
    assert len(load(qdq()).layers) == 4


@pytest.mark.parametrize(
    ("which", "scale"),
    [(which, bad) for which in ("sx", "sy") for bad in (np.nan, np.inf, 0.0, -0.1)]
    + [(which, bad) for which in ("sw", "sb") for bad in (np.nan, np.inf)],
)
def test_a_scale_that_is_no_scale(which: str, scale: float) -> None:
    """Scales of activations are positive; those of weights and biases are any finite numbers."""
    value = F(scale) if which in ("sx", "sy") else np.array([0.01, 0.01, scale, 0.01], F)
    with pytest.raises(ModelError, match="scale"):
        load(qdq(**{which: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sw": np.full(3, 0.01, F), "zw": np.zeros(3, np.int8)}, "scale"),
        ({"zw": np.zeros(3, np.int8)}, "zero point"),
        ({"zb": np.array([0, 1, 0, 0], np.int32)}, "zero point other than 0"),
        ({"w": np.ones((4, 3, 3, 3), np.int8)}, "channels"),
        ({"w": np.ones((4, 2, 7, 7), np.int8)}, "window"),
        ({"b": np.zeros(5, np.int32), "sb": F(0.001), "zb": np.int32(0)}, "bias"),
        ({"sx": np.array([0.1, 0.2, 0.3], F), "zx": np.zeros(3, np.uint8)}, "opset"),
    ],
)
def test_constants_that_do_not_fit(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(qdq(**changes))


def simple(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, opset: int = 17) -> onnx.ModelProto:
    return model(nodes, constants or {}, {"x": ["N", 4]}, {"y": ["N", 4]}, opset)


def cyclic() -> onnx.ModelProto:
    return simple([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")])


def dangling() -> onnx.ModelProto:
    return simple([node("Add", "x nowhere", "y")])


def duplicate() -> onnx.ModelProto:
    return simple([node("Relu", "x", "y"), node("Abs", "x", "y")])


def no_output() -> onnx.ModelProto:
    return simple([node("Relu", "x", "z")])


def future() -> onnx.ModelProto:
    return simple([node("Relu", "x", "y")], opset=onnx.defs.onnx_opset_version() + 1)


def unknown_operator() -> onnx.ModelProto:
    return simple([node("Det", "x", "y")])


def unknown_domain() -> onnx.ModelProto:
    proto = simple([helper.make_node("Relu", ["x"], ["y"], domain="nobody.knows")])
    proto.opset_import.append(helper.make_opsetid("nobody.knows", 1))
    return proto


def huge_initializer() -> onnx.ModelProto:
    proto = simple([node("Add", "x w", "y")])
    proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[1 << 25, 1 << 25], raw_data=b"\0" * 16))
    return proto


def negative_initializer() -> onnx.ModelProto:
    proto = simple([node("Add", "x w", "y")])
    proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[-4], raw_data=b""))
    return proto


def short_initializer() -> onnx.ModelProto:
    proto = simple([node("Add", "x w", "y")])
    proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[4], raw_data=b"\0" * 12))
    return proto


def huge_constant_of_shape() -> onnx.ModelProto:
    return simple([node("ConstantOfShape", "n", "w"), node("Add", "x w", "y")], {"n": np.array([1 << 20, 1 << 20])})


def huge_expand() -> onnx.ModelProto:
    return simple([node("Expand", "w n", "v"), node("Add", "x v", "y")], {"w": np.zeros(1, F), "n": np.array([1 << 40])})


def huge_pad() -> onnx.ModelProto:
    return simple([node("Pad", "w n", "v"), node("Add", "x v", "y")], {"w": np.zeros(1, F), "n": np.array([1 << 39, 1 << 39])})


def reshaped_batch() -> onnx.ModelProto:
    return simple([node("Reshape", "x n", "y")], {"n": np.array([7, 4])})


def training_norm() -> onnx.ModelProto:
    return simple([node("BatchNormalization", "x a a a a", "y", training_mode=1)], {"a": np.ones(4, F)})


def negative_variance() -> onnx.ModelProto:
    return simple([node("BatchNormalization", "x a a a v", "y")], {"a": np.ones(4, F), "v": -np.ones(4, F)})


def constant_output() -> onnx.ModelProto:
    return simple([node("Relu", "w", "y")], {"w": np.ones(4, F)})


def dynamic_channels() -> onnx.ModelProto:
    return model([node("Relu", "x", "y")], {}, {"x": ["N", "C"]}, {"y": ["N", "C"]})


def run_time_scale() -> onnx.ModelProto:
    nodes = [
        node("ReduceMax", "x", "s", axes=[1], keepdims=0),
        node("QuantizeLinear", "x s", "q"),
        node("DequantizeLinear", "q s", "y"),
    ]
    return simple(nodes)


def text_attribute() -> onnx.ModelProto:
    return simple([node("Conv", "x w", "y", auto_pad="SIDEWAYS")], {"w": np.ones((4, 4, 3, 3), F)})


BROKEN: list[tuple[Callable[[], onnx.ModelProto], str]] = [
    (cyclic, "cycle"),
    (dangling, "nowhere"),
    (duplicate, "more than one"),
    (no_output, "'y'"),
    (future, "newer"),
    (unknown_operator, "1 of its 1 nodes.*not supported: Det .1 node"),
    (unknown_domain, "nobody.knows"),
    (huge_initializer, "elements"),
    (negative_initializer, "shape"),
    (short_initializer, "needs 16 bytes"),
    (huge_constant_of_shape, "elements"),
    (huge_expand, "elements"),
    (huge_pad, "elements"),
    (reshaped_batch, "batch"),
    (training_norm, "training"),
    (negative_variance, "finite"),
    (constant_output, "does not depend"),
    (dynamic_channels, "shape"),
    (run_time_scale, "run time"),
    (text_attribute, "."),
]


@pytest.mark.parametrize(("build", "message"), BROKEN, ids=[build.__name__ for build, _ in BROKEN])
def test_a_broken_graph(build: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(build())
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)
    for name, data in {"empty": b"", "text": b"hello, I am not a model\n" * 9, "zip": b"PK\x03\x04" + bytes(range(256))}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelError):
            load(path)


def test_truncated_anywhere(tmp_path: Path) -> None:
    """Every prefix of a model is refused, wherever it ends."""
    data, path = qdq().SerializeToString(), tmp_path / "cut.onnx"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            load(path)


def test_random_damage_never_leaves_the_error_tree(tmp_path: Path, rng: np.random.Generator) -> None:
    data, path = bytearray(qdq().SerializeToString()), tmp_path / "damaged.onnx"
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        with contextlib.suppress(ModelError):
            load(path)


def external(tmp_path: Path, location: str, length: int = 64, **entries: int) -> Path:
    """A model whose weight lies in another file."""
    proto = simple([node("MatMul", "x w", "y")])
    tensor = TensorProto(name="w", data_type=1, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "length": length, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    proto.graph.initializer.append(tensor)
    path = tmp_path / "folder" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).choice([-1, 1], (4, 4)).astype(F)
    path = external(tmp_path, "w.bin")
    with pytest.raises(ModelError, match="does not exist"):
        load(path)
    (path.parent / "w.bin").write_bytes(weights.tobytes())
    np.testing.assert_array_equal(load(path).tensors["w"].values[:, :, 0, 0], weights.T)
    (path.parent / "w.bin").write_bytes(weights.tobytes()[:60])
    with pytest.raises(ModelError, match="60 bytes"):
        load(path)
    with pytest.raises(ModelError, match="needs 64 bytes"):
        load(external(tmp_path, "w.bin", 32))
    with pytest.raises(ModelError):
        load(external(tmp_path, "w.bin", 64, offset=-8))


def test_external_data_outside_the_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    (tmp_path / "folder").mkdir()
    os.symlink(secret, tmp_path / "folder" / "link.bin")
    for location in ("../secret.bin", str(secret), "link.bin", "a/../../secret.bin", ""):
        with pytest.raises(ModelError, match="outside"):
            load(external(tmp_path, location))


def test_a_long_chain_needs_no_recursion() -> None:
    count = 5000
    nodes = [node("Relu", "x" if i == 0 else f"v{i - 1}", f"v{i}" if i < count - 1 else "y") for i in range(count)]
    assert len(load(simple(nodes)).layers) == count


def test_an_old_model_lists_initializers_as_inputs() -> None:
    w = np.random.default_rng(0).choice([-1, 1], (4, 4)).astype(F)
    proto = simple([node("MatMul", "x w", "y")], {"w": w})
    proto.ir_version = 3
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 4]))
    assert load(proto).inputs == ("x",)


def test_microsoft_quantizers_are_onnx_quantizers() -> None:
    proto = qdq()
    for item in proto.graph.node:
        if item.op_type.endswith("Linear"):
            item.domain = "com.microsoft"
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert len(load(proto).layers) == 4


def test_functions_are_inlined() -> None:
    body = helper.make_function("local", "Double", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 17)])
    proto = simple([helper.make_node("Double", ["x"], ["y"], domain="local")])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.append(body)
    assert len(load(proto).layers) == 1


# ── functions and external data ─────────────────────────────────────────────────────────────────────


def nested_functions(depth: int, times: int, first: str = "f0") -> onnx.ModelProto:
    """Functions f0 … each of which calls the one before it `times` times; the graph calls the last one."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", first, ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opset)]
    for level in range(1, depth):
        names = ["a", *(f"t{i}" for i in range(times - 1)), "b"]
        calls = [helper.make_node(f"f{level - 1}", [names[i]], [names[i + 1]], domain="own") for i in range(times)]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], calls, opset))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node(f"f{depth - 1}", ["x"], ["y"], domain="own")], "g", [x], [y])
    return helper.make_model(graph, opset_imports=opset, functions=functions, ir_version=10)


def test_functions_are_put_in_place_of_their_calls() -> None:
    assert load(nested_functions(4, 2)).layers


@pytest.mark.parametrize("depth", [25, 34, 60])
def test_functions_that_double_are_counted_before_they_are_written_out(depth: int) -> None:
    with pytest.raises(ModelError, match=f"{1 << depth - 1:,} nodes"):
        load(nested_functions(depth, 2))


def test_functions_that_call_each_other_in_a_circle() -> None:
    model = nested_functions(3, 2)
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "f2", "own"
    with pytest.raises(ModelError, match="circle"):
        load(model)


@pytest.mark.parametrize("location", ["a\0b", "w" * 6000, "loop", "pipe", "folder", "../elsewhere", "missing"])
def test_external_data_in_places_that_are_no_file(tmp_path: Path, location: str) -> None:
    model = qdq()
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    content = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    onnx_file = tmp_path / "net.onnx"
    onnx_file.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w'"):
        load(onnx_file)
    tensor.external_data[0].value = "weights.bin"
    (tmp_path / "weights.bin").write_bytes(content)
    onnx_file.write_bytes(model.SerializeToString())
    assert len(load(onnx_file).layers) == 4


def test_an_error_within_a_lowering_names_the_node_and_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    from weakcell.emulator.importer import lowering

    def broken(draft: object, node: object) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setitem(lowering._LOWERINGS, "Conv", broken)
    with pytest.raises(ModelError, match=r"\(Conv, .*dequantized integers \[N, .*constant float32\[4, 2, 3, 3\]"):
        load(qdq())


def test_an_error_within_folding_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from weakcell.emulator.importer import lowering

    def broken(*given: object) -> None:
        raise KeyError("axis")

    monkeypatch.setattr(lowering, "fold", broken)
    with pytest.raises(ModelError, match=r"\(DequantizeLinear, .*constant int8\[4, 2, 3, 3\].*KeyError"):
        load(qdq())
