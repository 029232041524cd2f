"""Damaged models, by the thousand: whatever comes, the importer answers with a network or a typed error, soon and in little memory.

    python -m tests.emulator.fuzz --minutes 10 --seed 1     # prints what was tried; a crash is kept in tests/emulator/corpus

Seeds are small models of every dialect. Half of the damage is to bytes, half to what they say: other operators, attributes, types,
shapes, numbers, names. `corpus/` keeps every input that once broke something; the tests run them all.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.emulator.models import model, node
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.importer import load
from weakcell.emulator.ir.layers import Network
from weakcell.emulator.onnx_ops import OPERATORS
from weakcell.emulator.plan.plan import compile_plan
from weakcell.memmodels.errors import WeakcellError

CORPUS = Path(__file__).parent / "corpus"
SECONDS, BYTES = 5.0, 500 << 20
F = np.float32
Random = np.random.Generator


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

INTEGERS = [0, 1, -1, 2, 3, 7, 255, -128, 1 << 15, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-45, 3e38, 0.5]


def damaged(data: bytes, rng: Random) -> bytes:
    """A few bytes changed, or a few things said otherwise."""
    return _bytes(data, rng) if rng.integers(2) else _meaning(data, rng)


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
    number = int(_pick(INTEGERS, rng))
    attribute.i = number
    attribute.f = float(_pick(FLOATS, rng))
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
        value = _pick(FLOATS, rng) if array.dtype.kind == "f" else int(_pick(INTEGERS, rng)) % 256
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
        tensor.dims.append(int(_pick(INTEGERS, rng)))  # type: ignore[union-attr]


_CHANGES = (_attribute, _operator, _wiring, _numbers, _shape, _claims)


# ── trying ──────────────────────────────────────────────────────────────────────────────────────────


def tried(data: bytes) -> str:
    """ "error" for a typed error, "loaded" for a network (which also ran, if it is small); any other exception is a crash."""
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception:
        return "no protobuf"
    try:
        network = load(proto)
        _run(network)
    except WeakcellError:
        return "typed error"
    return "loaded"


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


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the importer.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _late)
    rng, end = np.random.default_rng(options.seed), time.monotonic() + 60 * options.minutes
    counts: Counter[str] = Counter()
    slowest, names = 0.0, sorted(SEEDS)
    for name in names:
        counts[tried(seed_bytes(name))] += 1
    before = peak()
    while time.monotonic() < end:
        data = damaged(seed_bytes(names[int(rng.integers(len(names)))]), rng)
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
        try:
            counts[tried(data)] += 1
        except Exception as e:
            counts["crashes"] += 1
            keep(data, f"{type(e).__name__}: {e}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.monotonic() - start
        if took > SECONDS:
            counts["too slow"] += 1
            keep(data, f"{took:.1f} s")
        slowest = max(slowest, took)
    counts.setdefault("crashes", 0)
    print(f"{sum(counts.values())} inputs: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    print(f"slowest {slowest:.2f} s; peak memory {peak() >> 20} MB, {(peak() - before) >> 20} MB above the seeds'")


def _late(number: int, frame: object) -> None:
    raise TimeoutError("it takes too long")


def keep(data: bytes, why: str) -> None:
    """Write an input to the corpus, named by its content."""
    CORPUS.mkdir(exist_ok=True)
    path = CORPUS / f"{hashlib.sha256(data).hexdigest()[:12]}.onnx"
    path.write_bytes(data)
    print(f"{path.name}: {why[:300]}", flush=True)


if __name__ == "__main__":
    main()
