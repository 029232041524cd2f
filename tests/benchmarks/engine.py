"""The engine against what a user would pick instead, in one process, one thread, interleaved; prints a table, writes JSON.

One thread but where a row says two: these figures hold only on a machine that does nothing else.

    python tests/benchmarks/engine.py [--rounds 7] [--json FILE]

Network: C64-MP2-BN-C64-MP2-BN-FC2048-BN-FC10 on 28 x 28 images, binarized, random weights, batch 256. The injectors are written as
a competent user would: torch draws a Bernoulli mask for every weight and multiplies; onnxruntime gets its weights as inputs, masked
by NumPy. Every candidate runs twice per round, and the faster run counts: what else the machine does rarely hits both. A
row is the median over rounds, a ratio the median of the rounds' ratios. A trial with a draw per batch has four batches, its
deployment included; what its errors cost is told against a clean pass over as many.
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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from weakcell import emulator
from weakcell.emulator import ReadPolicy, compile_plan, deploy, infer, outputs_under_faults, place
from weakcell.emulator.faults.deployment import Sampling
from weakcell.memmodels import parse_spec

BATCH, FEW, RATE = 256, 4, 0.01
SHAPES = {"w1": (64, 1, 3, 3), "w2": (64, 64, 3, 3), "w3": (2048, 3136), "w4": (10, 2048)}


def model(weights: dict[str, np.ndarray], as_inputs: bool) -> onnx.ModelProto:
    """The network as ONNX; weights as initializers, or as inputs for the injector."""
    rng = np.random.default_rng(1)
    norms = {}
    for name, channels in (("n1", 64), ("n2", 64), ("n3", 2048)):
        for part, values in (("g", rng.uniform(0.5, 1.5, channels)), ("b", rng.normal(0, 0.3, channels)),
                             ("m", rng.normal(0, 5, channels)), ("v", rng.uniform(50, 500, channels))):  # fmt: skip
            norms[f"{name}{part}"] = values.astype(np.float32)
    node = helper.make_node

    def norm(name: str, x: str) -> list[onnx.NodeProto]:
        inputs = [x, *(f"{name}{part}" for part in "gbmv")]
        return [node("BatchNormalization", inputs, [f"{name}y"]), node("Sign", [f"{name}y"], [f"{name}s"])]

    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), node("MaxPool", ["c1"], ["p1"], **pool),
        *norm("n1", "p1"),
        node("Conv", ["n1s", "w2"], ["c2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), node("MaxPool", ["c2"], ["p2"], **pool),
        *norm("n2", "p2"), node("Flatten", ["n2s"], ["f"]), node("Gemm", ["f", "w3"], ["d3"], transB=1),
        *norm("n3", "d3"), node("Gemm", ["n3s", "w4"], ["y"], transB=1),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["n", 1, 28, 28])]
    stored = dict(norms)
    if as_inputs:
        inputs += [value(name, TensorProto.FLOAT, list(shape)) for name, shape in SHAPES.items()]
    else:
        stored |= weights
    graph = helper.make_graph(nodes, "bnn", inputs, [value("y", TensorProto.FLOAT, ["n", 10])],
                              [numpy_helper.from_array(array, name) for name, array in stored.items()])  # fmt: skip
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def torch_network(proto: onnx.ModelProto) -> Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]:
    constants = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in proto.graph.initializer}

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        g, b, m, v = (constants[f"{name}{part}"] for part in "gbmv")
        return torch.sign(torch.nn.functional.batch_norm(x, m, v, g, b, False, 0.0, 1e-5))

    def run(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
        f = torch.nn.functional
        x = norm("n1", f.max_pool2d(f.conv2d(x, w["w1"], padding=1), 2))
        x = norm("n2", f.max_pool2d(f.conv2d(x, w["w2"], padding=1), 2))
        return norm("n3", x.flatten(1) @ w["w3"].T) @ w["w4"].T

    return run


def candidates() -> dict[str, tuple[int, Callable[[], Any]]]:
    """Name -> (images per call, call)."""
    rng = np.random.default_rng(0)
    weights = {name: rng.choice([-1.0, 1.0], shape).astype(np.float32) for name, shape in SHAPES.items()}
    x = rng.integers(0, 256, (BATCH, 1, 28, 28)).astype(np.float32)
    proto, open_proto = model(weights, False), model(weights, True)
    network = emulator.load(proto)
    plan = compile_plan(network)
    fixed, open_session = session(proto), session(open_proto)
    torch_run, torch_weights = torch_network(proto), {name: torch.from_numpy(w) for name, w in weights.items()}
    few, four = x[:FEW], np.concatenate([x] * 4)
    assert np.array_equal(infer(plan, {"x": x})["y"], fixed.run(None, {"x": x})[0])

    def ours(rate: float, policy: ReadPolicy, images: np.ndarray, sampling: Sampling = Sampling.BITS) -> Callable[[], Any]:
        placement, trial = place(network, parse_spec(f"uniform:ber={rate}")), iter(range(1 << 30))

        def run() -> Any:
            deployment = deploy(plan, placement, policy, trial=next(trial), sampling=sampling)
            return outputs_under_faults(plan, {"x": images}, deployment, BATCH)

        return run

    def with_numpy(images: np.ndarray) -> Callable[[], Any]:
        draws = np.random.default_rng(2)

        def faulty() -> dict[str, np.ndarray]:
            return {k: np.where(draws.random(w.shape, dtype=np.float32) < RATE, -w, w) for k, w in weights.items()}

        return lambda: open_session.run(None, {"x": images, **faulty()})

    def with_torch(images: np.ndarray) -> Callable[[], Any]:
        tensor = torch.from_numpy(images)

        def faulty() -> dict[str, torch.Tensor]:
            return {k: w * (1 - 2 * torch.bernoulli(torch.full_like(w, RATE))) for k, w in torch_weights.items()}

        return lambda: torch_run(tensor, faulty())

    def each(make: Callable[[np.ndarray], Callable[[], Any]]) -> Callable[[], Any]:
        calls = [make(few[i : i + 1]) for i in range(FEW)]
        return lambda: [call() for call in calls]

    return {
        "clean": (BATCH, lambda: infer(plan, {"x": x})),
        "clean, two threads": (BATCH, lambda: infer(plan, {"x": x}, threads=2)),
        "clean, four batches": (4 * BATCH, lambda: infer(plan, {"x": four})),
        "clean, four batches, two threads": (4 * BATCH, lambda: infer(plan, {"x": four}, threads=2)),
        "clean, onnxruntime float": (BATCH, lambda: fixed.run(None, {"x": x})),
        "clean, torch": (BATCH, lambda: torch_run(torch.from_numpy(x), torch_weights)),
        "deployed, no errors": (4 * BATCH, ours(0.0, ReadPolicy.BATCH, four)),
        "1 %, draw per batch": (4 * BATCH, ours(RATE, ReadPolicy.BATCH, four)),
        "30 %, draw per batch": (4 * BATCH, ours(0.3, ReadPolicy.BATCH, four)),
        "1 %, draw per batch, onnxruntime + NumPy": (BATCH, with_numpy(x)),
        "1 %, draw per batch, torch": (BATCH, with_torch(x)),
        "1 %, draw per image": (BATCH, ours(RATE, ReadPolicy.IMAGE, x)),
        "1 %, draw per image, --sampling outputs": (BATCH, ours(RATE, ReadPolicy.IMAGE, x, Sampling.OUTPUTS)),
        "1 %, draw per image, onnxruntime + NumPy": (FEW, each(with_numpy)),
        "1 %, draw per image, torch": (FEW, each(with_torch)),
    }


RATIOS = [
    ("clean, against onnxruntime float", "clean, onnxruntime float", "clean"),
    ("clean, against torch", "clean, torch", "clean"),
    ("two threads against one, one batch", "clean", "clean, two threads"),
    ("two threads against one, four batches", "clean, four batches", "clean, four batches, two threads"),
    ("1 % per batch, against onnxruntime + NumPy", "1 %, draw per batch, onnxruntime + NumPy", "1 %, draw per batch"),
    ("1 % per batch, against torch", "1 %, draw per batch, torch", "1 %, draw per batch"),
    ("1 % per image, against onnxruntime + NumPy", "1 %, draw per image, onnxruntime + NumPy", "1 %, draw per image"),
    ("1 % per image, against torch", "1 %, draw per image, torch", "1 %, draw per image"),
    (
        "the same with outputs, against ORT + NumPy",
        "1 %, draw per image, onnxruntime + NumPy",
        "1 %, draw per image, --sampling outputs",
    ),
    ("the same with outputs, against torch", "1 %, draw per image, torch", "1 %, draw per image, --sampling outputs"),
    ("time of a trial without errors over clean, four batches", "deployed, no errors", "clean, four batches"),
    ("time of 1 % per batch over clean, four batches", "1 %, draw per batch", "clean, four batches"),
    ("time of 30 % per batch over clean, four batches", "30 %, draw per batch", "clean, four batches"),
]


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs, times = candidates(), {}
    for _, call in runs.values():
        call()
    for _ in range(arguments.rounds):
        for name, (images, call) in runs.items():
            times.setdefault(name, []).append(min(seconds(call), seconds(call)) / images)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        label: statistics.median(a / b for a, b in zip(times[over], times[under], strict=True)) for label, over, under in RATIOS
    }
    for name, value in medians.items():
        print(f"{name:55s} {value * 1e6:12.1f} us/image")
    print()
    for label, value in ratios.items():
        print(f"{label:55s} {value:12.2f} x")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"us_per_image": {k: v * 1e6 for k, v in medians.items()}, "ratios": ratios}, indent=1)
        )


if __name__ == "__main__":
    main()
