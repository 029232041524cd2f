"""ONNX networks: small models of every dialect, damaged in their bytes and in what they say.

Half of the damage is to bytes. The other half changes operators, attributes, types, shapes, numbers and names, or puts nodes into
functions and branches, tensors into other files, and weights into sparse form.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random as PythonRandom

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.emulator.models import model, node
from tests.fuzzing.engine import Reader
from tests.fuzzing.mutations import FLOATS, INTEGERS, damage, hostile_text
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.network import Network
from weakcell.emulator.onnx_ops import OPERATORS
from weakcell.emulator.plan.plan import compile_plan

F = np.float32
Random = np.random.Generator
_INT64 = [number for number in INTEGERS if -(1 << 63) <= number < 1 << 63]


# ── seeds ───────────────────────────────────────────────────────────────────────────────────────────


def _imports(proto: onnx.ModelProto, *domains: str) -> onnx.ModelProto:
    for domain in domains:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def _qdq() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    constants = {
        "sx": F(0.1), "zx": np.uint8(128), "w": rng.integers(-9, 9, (4, 2, 3, 3)).astype(np.int8), "sw": np.full(4, 0.01, F),
        "b": np.arange(4, dtype=np.int32), "sb": F(0.1) * np.full(4, 0.01, F), "sy": F(0.2), "zy": np.uint8(7),
        "n": np.array([0, -1]), "v": rng.integers(-9, 9, (16, 3)).astype(np.int8), "g": np.ones(4, F), "h": np.zeros(4, F),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"), node("DequantizeLinear", "q sx zx", "f"),
        node("DequantizeLinear", "w sw", "wf", axis=0), node("DequantizeLinear", "b sb", "bf", axis=0),
        node("Conv", "f wf bf", "c", pads=[1, 1, 1, 1], strides=[2, 2]), node("BatchNormalization", "c g h h g", "bn"),
        node("Relu", "bn", "e"), node("QuantizeLinear", "e sy zy", "r"), node("DequantizeLinear", "r sy zy", "d"),
        node("MaxPool", "d", "p", kernel_shape=[2, 2], strides=[2, 2]), node("Concat", "p p", "cc", axis=1),
        node("Split", "cc", "s1 s2", axis=1, num_outputs=2), node("Add", "s1 s2", "s"), node("QuantizeLinear", "s sy zy", "t"),
        node("DequantizeLinear", "t sy zy", "u"), node("Reshape", "u n", "k"), node("DequantizeLinear", "v sy", "vf"),
        node("MatMul", "k vf", "m"), node("Softmax", "m", "y"),
    ]  # fmt: skip
    return model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 2, 8, 8]}, {"y": ["N", 3]}, 18)


def _operators() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    constants = {
        "s": F(0.1),
        "z": np.uint8(3),
        "w": rng.integers(-9, 9, (4, 2, 3, 3)).astype(np.int8),
        "sw": F(0.01),
        "zw": np.int8(0),
    }
    constants["v"] = rng.integers(-9, 9, (4, 3)).astype(np.int8)
    names = {"domain": "com.microsoft"}
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("QLinearConv", "q s z w sw zw s z", "a"),
        helper.make_node("QLinearLeakyRelu", ["a", "s", "z", "s", "z"], ["b"], alpha=0.1, **names),
        helper.make_node("QLinearMul", ["a", "s", "z", "b", "s", "z", "s", "z"], ["c"], **names),
        helper.make_node("QLinearAdd", ["a", "s", "z", "c", "s", "z", "s", "z"], ["d"], **names),
        helper.make_node("QLinearGlobalAveragePool", ["d", "s", "z", "s", "z"], ["e"], **names), node("Flatten", "e", "f"),
        helper.make_node("QGemm", ["f", "s", "z", "v", "sw", "zw", "", "s", "z"], ["g"], **names),
        helper.make_node("QLinearSoftmax", ["g", "s", "z", "s", "z"], ["h"], axis=1, opset=13, **names),
        node("DequantizeLinear", "h s z", "y"),
    ]  # fmt: skip
    proto = model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 2, 8, 8]}, {"y": ["N", 3]})
    return _imports(proto, "com.microsoft")


def _qonnx() -> onnx.ModelProto:
    rng = np.random.default_rng(2)
    names = {"domain": "qonnx.custom_op.general"}
    constants = {
        "s": F(0.125), "z": F(0), "b": F(4), "w": rng.normal(size=(4, 2, 3, 3)).astype(F), "t": np.sort(rng.normal(size=(4, 3)), 1),
        "v": rng.normal(size=(144, 3)).astype(F), "g": rng.normal(size=4).astype(F), "p": np.abs(rng.normal(size=4)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Quant", ["x", "s", "z", "b"], ["q"], signed=1, narrow=0, rounding_mode="ROUND", **names),
        helper.make_node("Quant", ["w", "s", "z", "b"], ["wq"], signed=1, narrow=1, rounding_mode="ROUND", **names),
        node("Conv", "q wq", "c"), node("BatchNormalization", "c g g g p", "n"),
        helper.make_node("MultiThreshold", ["n", "t"], ["m"], out_scale=1.0, out_bias=-1.0, **names),
        helper.make_node("Trunc", ["m", "s", "z", "b", "b"], ["r"], rounding_mode="FLOOR", **names),
        helper.make_node("BipolarQuant", ["r", "s"], ["bi"], **names),
        helper.make_node("BipolarQuant", ["v", "s"], ["vq"], **names), node("Flatten", "bi", "f"), node("Gemm", "f vq", "y"),
    ]  # fmt: skip
    arrays = {k: np.asarray(v, F) for k, v in constants.items()}
    return _imports(model(nodes, arrays, {"x": [1, 2, 8, 8]}, {"y": [1, 3]}, 13), "qonnx.custom_op.general")


def _binary() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.choice([-1, 1], (4, 2, 3, 3)), "g": rng.normal(size=4), "p": np.abs(rng.normal(size=4)), "o": np.array(1.0),
        "m": np.array(-1.0), "z": np.array(0.0), "v": rng.choice([-1, 1], (64, 3)),
    }  # fmt: skip
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("MaxPool", "c", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("BatchNormalization", "p1 g g g p", "n"), node("GreaterOrEqual", "n z", "b"), node("Where", "b o m", "s"),
        node("Flatten", "s", "f"), node("MatMul", "f v", "y"),
    ]  # fmt: skip
    return model(nodes, {k: np.asarray(v, F) for k, v in constants.items()}, {"x": ["N", 2, 8, 8]}, {"y": ["N", 3]})


def _dynamic() -> onnx.ModelProto:
    rng = np.random.default_rng(4)
    constants = {"w": rng.integers(0, 255, (8, 6)).astype(np.uint8), "zw": np.uint8(120), "sw": F(0.1), "b": np.ones(6, F)}
    constants |= {"B": rng.integers(0, 255, (5, 1, 8)).astype(np.uint8), "s": np.full(5, 0.1, F)}
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s1 z1"), node("MatMulInteger", "q w z1 zw", "a"), node("Cast", "a", "f", to=1),
        node("Mul", "s1 sw", "m"), node("Mul", "f m", "g"), node("Add", "g b", "h"),
        helper.make_node("MatMulNBits", ["h", "B", "s"], ["y"], domain="com.microsoft", K=6, N=5, bits=4, block_size=16),
    ]  # fmt: skip
    proto = model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 8]}, {"y": ["N", 5]})
    return _imports(proto, "com.microsoft")


def _resize() -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    constants = {
        "s": F(0.1), "z": np.uint8(99), "f": np.array([1, 1, 1.5, 2], F), "n": np.array([1, 2, 5, 6]), "r": np.zeros(8, F),
        "w": rng.integers(-9, 9, (60, 3)).astype(np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "a"),
        node("Resize", "a - f", "b", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("Resize", "b - - n", "c", mode="cubic", antialias=1, cubic_coeff_a=-0.5, exclude_outside=1),
        node("Resize", "c r f", "d", mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=1.0),
        node("Resize", "d - - n", "e", mode="linear", keep_aspect_ratio_policy="stretch"), node("Flatten", "e", "g"),
        node("DequantizeLinear", "w s", "v"), node("MatMul", "g v", "y"),
    ]  # fmt: skip
    return model(nodes, {k: np.asarray(v) for k, v in constants.items()}, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3]}, 19)


SEEDS: dict[str, Callable[[], onnx.ModelProto]] = {
    "qdq": _qdq, "qoperator": _operators, "qonnx": _qonnx, "binary": _binary, "dynamic": _dynamic, "resize": _resize,
}  # fmt: skip


@cache
def seed_bytes(name: str) -> bytes:
    data: bytes = SEEDS[name]().SerializeToString()
    return data


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────


def damaged(data: bytes, rng: Random) -> bytes:
    """A few bytes changed, or a few things said otherwise."""
    return _meaning(data, rng) if rng.integers(8) else _bytes(data, rng)


def _bytes(data: bytes, rng: Random) -> bytes:
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, kind = int(rng.integers(max(1, len(broken)))), rng.integers(4)
        if kind == 0 and broken:
            broken[at] = int(rng.integers(256))
        elif kind == 1:
            broken[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        elif kind == 2:
            del broken[at : at + int(rng.integers(1, 9))]
        elif rng.integers(10) == 0:
            del broken[at:]
    return bytes(broken)


def _meaning(data: bytes, rng: Random) -> bytes:
    proto = onnx.ModelProto.FromString(data)
    for _ in range(int(rng.integers(1, 4))):
        with contextlib.suppress(Exception):  # what an earlier change broke, this one may not know how to change
            _CHANGES[int(rng.integers(len(_CHANGES)))](proto, rng)
    result: bytes = proto.SerializeToString()
    return result


def _pick(items: object, rng: Random) -> object | None:
    return items[int(rng.integers(len(items)))] if len(items) else None  # type: ignore[index, arg-type]


def _attribute(proto: onnx.ModelProto, rng: Random) -> None:
    chosen = _pick(proto.graph.node, rng)
    attribute = _pick(chosen.attribute, rng) if chosen else None
    if attribute is None:
        return
    number = int(_pick(_INT64, rng))
    attribute.i = number
    attribute.f = float(_pick(FLOATS, rng))
    if rng.integers(8) == 0:
        attribute.type = int(rng.integers(0, 15))
    if rng.integers(8) == 0:
        attribute.s = str(_pick(_NAMES, rng)).encode()
    if attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = number
        if rng.integers(3) == 0:
            attribute.ints.append(number)


def _operator(proto: onnx.ModelProto, rng: Random) -> None:
    chosen = _pick(proto.graph.node, rng)
    if chosen is not None:
        chosen.op_type = str(_pick(sorted(OPERATORS), rng)).split(".")[-1]


def _wiring(proto: onnx.ModelProto, rng: Random) -> None:
    chosen, other = _pick(proto.graph.node, rng), _pick(proto.graph.node, rng)
    names = [t.name for t in proto.graph.initializer] + [name for n in proto.graph.node for name in n.output] + ["", "x"]
    if chosen is None or other is None:
        return
    kind = rng.integers(4)
    if kind == 0 and chosen.input:
        chosen.input[int(rng.integers(len(chosen.input)))] = str(_pick(names, rng))
    elif kind == 1:
        chosen.input.append(str(_pick(names, rng)))
    elif kind == 2 and chosen.input:
        del chosen.input[-1]
    else:
        proto.graph.node.remove(chosen)


def _numbers(proto: onnx.ModelProto, rng: Random) -> None:
    tensor = _pick(proto.graph.initializer, rng)
    if tensor is None:
        return
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    if flat.size:
        value = _pick(FLOATS, rng) if array.dtype.kind == "f" else int(_pick(_INT64, rng)) % 256
        with np.errstate(all="ignore"):
            flat[int(rng.integers(flat.size))] = np.asarray(value).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _shape(proto: onnx.ModelProto, rng: Random) -> None:
    tensor = _pick(proto.graph.initializer, rng)
    if tensor is None:
        return
    array = numpy_helper.to_array(tensor)
    kind = rng.integers(4)
    if kind == 0 and array.ndim:
        array = array[: max(0, array.shape[0] - 1)]
    elif kind == 1:
        array = array.reshape(-1)
    elif kind == 2:
        array = array[None]
    else:
        array = array.astype(_pick([np.float32, np.int8, np.uint8, np.int32, np.int64, np.float64, np.bool_, np.float16], rng))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _claims(proto: onnx.ModelProto, rng: Random) -> None:
    kind = rng.integers(4)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    if kind == 0 and proto.opset_import:
        _pick(proto.opset_import, rng).version = int(rng.integers(1, 30))  # type: ignore[union-attr]
    elif kind == 1 and dims:
        dims[int(rng.integers(len(dims)))].dim_value = int(_pick([0, 1, 3, 9, -1, 1 << 40], rng))
    elif kind == 2:
        proto.graph.input[0].type.tensor_type.elem_type = int(rng.integers(0, 27))
    elif proto.graph.initializer:
        tensor = _pick(proto.graph.initializer, rng)
        tensor.dims.append(int(_pick(_INT64, rng)))  # type: ignore[union-attr]


def _function(proto: onnx.ModelProto, rng: Random) -> None:
    """Put one to three nodes into a function, now and then one that calls itself or others."""
    count = len(proto.graph.node)
    first = int(rng.integers(count))
    nodes = list(proto.graph.node[first : first + int(rng.integers(1, 4))])
    made = {name for n in nodes for name in n.output if name}
    inputs = sorted({name for n in nodes for name in n.input if name} - made)
    outputs = sorted(made)
    name = f"f{len(proto.functions)}" if rng.integers(8) else "f0"
    body = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    if rng.integers(6) == 0:
        called = str(_pick(["f0", "f1", name], rng))
        body.append(helper.make_node(called, inputs, [f"{out}_again" for out in outputs], domain="local"))
    proto.functions.append(helper.make_function("local", name, inputs, outputs, body, list(proto.opset_import)))
    if all(o.domain != "local" for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("local", 1))
    for n in nodes:
        proto.graph.node.remove(n)
    proto.graph.node.insert(first, helper.make_node(name, inputs, outputs, domain="local"))


def _elsewhere(proto: onnx.ModelProto, rng: Random) -> None:
    """Move a tensor to another file; the place is mostly right."""
    tensor = _pick(proto.graph.initializer, rng)
    if tensor is None:
        return
    places = ["weights.bin"] * 4 + ["../weights.bin", "/etc/hostname", "/dev/zero", ".", "", "a\0b", "none.bin", "weights.bin/.."]
    size = int(np.prod([float(d) for d in tensor.dims])) * numpy_helper.to_array(tensor).itemsize
    entries = {"location": str(_pick(places, rng)), "offset": "0", "length": str(size)}
    if rng.integers(4) == 0:
        entries[str(_pick(["offset", "length", "checksum"], rng))] = str(_pick([*_INT64, "x", "1e3", " 1", ""], rng))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def _branch(proto: onnx.ModelProto, rng: Random) -> None:
    """Put a node into the branches of an If."""
    chosen = _pick(proto.graph.node, rng)
    if chosen is None:
        return
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in chosen.output]
    branch = helper.make_graph([chosen], "branch", [], outputs)
    at = list(proto.graph.node).index(chosen)
    outs = list(chosen.output)
    proto.graph.node.remove(chosen)
    proto.graph.node.insert(at, helper.make_node("If", ["x"], outs, then_branch=branch, else_branch=branch))


def _sparse(proto: onnx.ModelProto, rng: Random) -> None:
    tensor = _pick(proto.graph.initializer, rng)
    if tensor is None:
        return
    indices = numpy_helper.from_array(np.array(_pick([[0], [0, 1], [-1], [1 << 40]], rng), np.int64), "i")
    values = numpy_helper.from_array(np.zeros(int(rng.integers(3)), np.float32), tensor.name)
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, list(tensor.dims)))
    if rng.integers(2):
        proto.graph.initializer.remove(tensor)


def _symbols(proto: onnx.ModelProto, rng: Random) -> None:
    """Make dimensions symbols, or types others, of an input or output."""
    value = _pick([*proto.graph.input, *proto.graph.output], rng)
    for dim in value.type.tensor_type.shape.dim:  # type: ignore[union-attr]
        if rng.integers(2):
            dim.dim_param = str(_pick(["N", "H", "seq", "", "N+1", "-1", "a\0b"], rng))
    if rng.integers(6) == 0:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1  # type: ignore[union-attr]


def _rename(proto: onnx.ModelProto, rng: Random) -> None:
    chosen = _pick([*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output], rng)
    chosen.name = str(_pick(_NAMES, rng))  # type: ignore[union-attr]


_NAMES = sorted({hostile_text(PythonRandom(i)) for i in range(200)} - {""})
_CHANGES = (_attribute, _operator, _wiring, _numbers, _shape, _claims, _function, _elsewhere, _branch, _sparse, _symbols, _rename)


# ── trying ──────────────────────────────────────────────────────────────────────────────────────────

_BESIDE = {"weights.bin": bytes(range(256)) * 16}
_FOLDERS: set[Path] = set()


def read(data: bytes, folder: Path) -> None:
    """Load a model file; a small network also runs, once."""
    if folder not in _FOLDERS:
        _FOLDERS.add(folder)
        for name, content in _BESIDE.items():
            (folder / name).write_bytes(content)
    path = folder / "model.onnx"
    path.write_bytes(data)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        _run(load(path))


def _run(network: Network) -> None:
    if any(np.prod([float(n) for n in spec.shape]) > 1 << 18 for spec in network.values.values()):
        return
    rng = np.random.default_rng(0)
    inputs = {}
    for name in network.inputs:
        spec = network.values[name]
        high = 2 if spec.dtype == "bool" else 100
        inputs[name] = rng.integers(0, high, (2, *spec.shape)).astype(spec.dtype)
    infer(compile_plan(network), inputs)


def _generate(random: PythonRandom) -> bytes:
    data = seed_bytes(random.choice(sorted(SEEDS)))
    return damaged(data, np.random.default_rng(random.getrandbits(32)))


def _mutate(data: bytes, random: PythonRandom) -> bytes:
    try:
        return damaged(data, np.random.default_rng(random.getrandbits(32)))
    except Exception:  # no protobuf: its meaning cannot be changed
        return damage(data, random)


_EARLY = "are not an ONNX model|it has no ONNX graph|it is empty"
READERS = {"onnx": Reader("onnx", _generate, read, _EARLY, ".onnx", _mutate, tests=60)}
