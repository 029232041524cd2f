"""Single layers against the speed of the processor and against onnxruntime and torch, one thread, interleaved; table and JSON.

    python tests/benchmarks/layers.py [--rounds 9] [--json FILE]

Times are of the process's CPU, medians over rounds in which every candidate runs once, so other work on the machine disturbs all
alike. The binary roofline is the rate of xor + popcount + add on whole registers that depend on nothing but themselves, measured in
the same rounds. onnxruntime gets 8-bit weights and its fastest operators, QLinearMatMul and the channels-last QLinearConv that its
optimizer makes; like ours they end in codes, and with 8-bit weights in the same ones. float32 is the best of numpy, torch and
onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numba
import numpy as np
import onnx
import onnxruntime as ort
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from onnx import TensorProto, helper, numpy_helper

from weakcell.emulator import compile_plan
from weakcell.emulator.engine.fusion import compute_step, fuse_layers
from weakcell.emulator.ir.layers import Convolution, Dequantize, Requantize, Threshold
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import SIGN1, Encoding, StoredTensor, ValueSpec, Window, pack_channels
from weakcell.emulator.plan.parameters import fault_free_parameters

SCALE, ZERO = np.float32(2**-14), 100
"""How sums become codes."""
CHAINS = 24
"""Accumulators in flight while the roofline is measured: more than hide the latency of a step."""
SHAPES = {"FC 2048 x 2048, batch 256": (256, 2048, 2048, 1, 1), "FC 2048 x 2048, batch 1": (1, 2048, 2048, 1, 1),
          "conv 3 x 3, 128 to 128, 32 x 32, batch 16": (16, 128, 128, 32, 3)}  # fmt: skip


@intrinsic  # type: ignore[untyped-decorator]
def _steps(typingctx, count):  # type: ignore[no-untyped-def]
    """acc += popcount(acc ^ c) in CHAINS vectors of 512 bits, `count` times."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = ir.VectorType(ir.IntType(64), 8)
        popcount = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), "llvm.ctpop.v8i64")
        room = [cgutils.alloca_once_value(builder, ir.Constant(vector, [i + lane for lane in range(8)])) for i in range(CHAINS)]
        with cgutils.for_range(builder, args[0]):
            for i, place in enumerate(room):
                total = builder.load(place)
                other = ir.Constant(vector, [0x5DEECE66D * (i + lane + 1) for lane in range(8)])
                builder.store(builder.add(total, builder.call(popcount, [builder.xor(total, other)])), place)
        result = ir.Constant(ir.IntType(64), 0)
        for place in room:
            result = builder.xor(result, builder.extract_element(builder.load(place), ir.Constant(ir.IntType(32), 0)))
        return result

    return types.int64(types.int64), codegen


@numba.njit  # type: ignore[untyped-decorator]
def roofline(count):  # type: ignore[no-untyped-def]
    return _steps(count)


def ours(shape: tuple[int, ...], encoding: Encoding) -> Callable[[], Any]:
    """The layer from codes to codes, or from bits to bits if it is binary."""
    _, channels, outputs, size, kernel = shape
    rng, binary, window = np.random.default_rng(0), encoding == SIGN1, Window((kernel, kernel), pads=(kernel // 2,) * 4)
    values = rng.integers(encoding.low, encoding.high + 1, (outputs, channels, kernel, kernel))
    values = np.where(values < 0, -1, 1) if binary else values
    weight = StoredTensor("w", "weight", encoding, values.astype(np.int32))
    threshold = StoredTensor("t", "threshold", Encoding("signed", 32), rng.integers(-50, 50, outputs).astype(np.int32))
    specs = {"x": ValueSpec("x", "bits" if binary else "codes", (channels, size, size), "uint64" if binary else "uint8"),
             "acc": ValueSpec("acc", "codes", (outputs, size, size), "int32"),
             "y": ValueSpec("y", "bits" if binary else "codes", (outputs, size, size), "uint64" if binary else "uint8"),
             "z": ValueSpec("z", "float", (outputs, size, size))}  # fmt: skip
    ends = Threshold("s", ("acc",), "y", "t", np.zeros(outputs, bool)), Requantize("r", ("acc",), "y", SCALE, ZERO, 0, 255)
    layers = Convolution("c", ("x",), "acc", "w", None, window), ends[not binary], Dequantize("d", ("y",), "z", np.float32(1))
    network = Network("one", ("x",), ("z",), layers, specs, {"w": weight, "t": threshold})
    parameters, step = fault_free_parameters(compile_plan(network)), fuse_layers(network)[0]
    x = pixels(shape)
    given = pack_channels(x > 127) if binary else x
    return lambda: compute_step(step, [given], parameters)


def pixels(shape: tuple[int, ...]) -> np.ndarray:
    """The input, channels last."""
    n, channels, _, size, _ = shape
    return np.random.default_rng(1).integers(0, 256, (n, size, size, channels)).astype(np.uint8)


def onnxruntime_int8(shape: tuple[int, ...]) -> Callable[[], Any]:
    n, channels, outputs, _, kernel = shape
    w, x = np.random.default_rng(0).integers(-128, 128, (outputs, channels, kernel, kernel)).astype(np.int8), pixels(shape)
    names = ["x", "one", "no", "w", "one", "none", "scale", "zero"]
    if kernel == 1:
        node = helper.make_node("QLinearMatMul", names, ["y"])
        w, x = np.ascontiguousarray(w.reshape(outputs, channels).T), x.reshape(n, channels)
    else:
        node = helper.make_node("QLinearConv", names, ["y"], domain="com.microsoft", pads=[kernel // 2] * 4, channels_last=1)
    constants = {"w": w, "one": np.float32(1), "no": np.uint8(0), "none": np.int8(0), "scale": 1 / SCALE, "zero": np.uint8(ZERO)}
    graph = helper.make_graph([node], "one", [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
                              [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()])  # fmt: skip
    run = _session(graph)
    return lambda: run.run(None, {"x": x})


def floats(shape: tuple[int, ...]) -> list[Callable[[], Any]]:
    """The same product in float32, by every library at hand."""
    n, channels, outputs, size, kernel = shape
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, channels, size, size)).astype(np.float32)
    w = rng.normal(size=(outputs, channels, kernel, kernel)).astype(np.float32)
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4)
    if kernel == 1:
        x, w = x.reshape(n, channels), np.ascontiguousarray(w.reshape(outputs, channels).T)
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "one", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(w, "w")])  # fmt: skip
    run = _session(graph)
    calls: list[Callable[[], Any]] = [lambda: run.run(None, {"x": x})]
    if kernel == 1:
        flat, right = torch.from_numpy(x), torch.from_numpy(w)
        return [*calls, lambda: x @ w, lambda: flat @ right]
    return [*calls, lambda: torch.nn.functional.conv2d(tx, tw, padding=kernel // 2)]


def _session(graph: onnx.GraphProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, ir_version=10, opset_imports=imports)
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each call, round by round; short ones run several times."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.process_time()
        call()
        repeats[name] = max(1, int(0.01 / max(time.process_time() - start, 1e-6)))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.process_time() - start) / repeats[name])
    return times


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def rows_of(label: str, shape: tuple[int, ...], rounds: int) -> list[dict[str, float | str]]:
    n, channels, outputs, size, kernel = shape
    products = n * outputs * channels * (size * kernel) ** 2
    count = 200_000
    calls: dict[str, Callable[[], Any]] = {"roofline": lambda: roofline(count), "onnxruntime int8": onnxruntime_int8(shape)}
    calls |= {f"float {i}": call for i, call in enumerate(floats(shape))}
    encodings = {"binary": SIGN1, **{f"{bits}-bit weights": Encoding("signed", bits) for bits in (8, 4, 2)}}
    calls |= {name: ours(shape, encoding) for name, encoding in encodings.items()}
    assert np.array_equal(calls["8-bit weights"]().reshape(-1), calls["onnxruntime int8"]()[0].reshape(-1))
    times = timed(calls, rounds)
    best = min((name for name in times if name.startswith("float")), key=lambda name: statistics.median(times[name]))
    peak = count * CHAINS * 512 / statistics.median(times["roofline"])
    rows = []
    for name in encodings:
        speed = products / statistics.median(times[name])
        fraction = speed / peak if name == "binary" else float("nan")
        row = {"layer": label, "ours": name, "us": 1e6 * statistics.median(times[name]), "GMAC/s": speed / 1e9}
        ratios = {"vs onnxruntime int8": ratio(times, "onnxruntime int8", name), "vs float32": ratio(times, best, name)}
        rows.append({**row, "of roofline": fraction, **ratios})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for label, shape in SHAPES.items() for row in rows_of(label, shape, arguments.rounds)]
    for row in rows:
        print("  ".join(f"{value:>10.2f}" if isinstance(value, float) else f"{value:45s}"[: 45 if key == "layer" else 16]
                        for key, value in row.items()))  # fmt: skip
    print("columns: " + ", ".join(rows[0]))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
