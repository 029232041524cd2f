"""ResNet18 and MobileNetV2 with 8-bit weights and activations against onnxruntime's integer kernels; prints a table, writes JSON.

    python tests/benchmarks/integer_networks.py [--rounds 7] [--json FILE]

Random weights, batch norms folded into them, 32 x 32 images (stems and strides as in `host/train/residual.py`), batch 64, quantized
by onnxruntime's `quantize_static` (a scale per channel) in both of its forms. onnxruntime runs with all of its optimizations, so on
its fused integer kernels. One process, one thread; both run once per round, a row is the median over rounds. Outputs are compared
with onnxruntime's without optimizations: of a QOperator network they must be equal; a QDQ network it then runs in float32, as the
file says, and the codes that it rounds the other way spread through a random network (layer by layer they are compared in
`tests/emulator/test_importer_structure.py`). Peak memory is that of a process that loads the network, runs the batch, and no more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from weakcell import emulator
from weakcell.emulator import compile_plan, infer

BATCH, CLASSES, SIZE = 64, 10, 32


class Drawing:
    """An ONNX graph in the making: each move adds nodes with random weights and returns the name of what they make."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def constant(self, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values.astype(np.float32), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape))

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> str:
        w, b = self.weight(outputs, inputs // groups, kernel, kernel), self.constant(self.rng.normal(0, 0.1, outputs))
        return self.node("Conv", x, w, b, pads=[kernel // 2] * 4, strides=[stride] * 2, group=groups)

    def relu6(self, x: str) -> str:
        return self.node("Clip", x, self.constant(np.array(0.0)), self.constant(np.array(6.0)))

    def model(self, x: str, inputs: int) -> onnx.ModelProto:
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        y = self.node("Gemm", flat, self.weight(CLASSES, inputs), self.constant(np.zeros(CLASSES)), transB=1)
        image, scores = ["N", 3, SIZE, SIZE], ["N", CLASSES]
        graph = helper.make_graph(self.nodes, "network", [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
                                  [helper.make_tensor_value_info(y, TensorProto.FLOAT, scores)], self.constants)  # fmt: skip
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def resnet18() -> onnx.ModelProto:
    d = Drawing()
    x, inputs = d.node("Relu", d.conv("x", 3, 64)), 64
    for stage in range(4):
        for block in range(2):
            outputs, stride = 64 << stage, 2 if stage and not block else 1
            y = d.conv(d.node("Relu", d.conv(x, inputs, outputs, stride=stride)), outputs, outputs)
            x = d.node("Relu", d.node("Add", y, x if stride == 1 else d.conv(x, inputs, outputs, 1, stride)))
            inputs = outputs
    return d.model(x, inputs)


def mobilenetv2() -> onnx.ModelProto:
    d = Drawing()
    x, inputs = d.relu6(d.conv("x", 3, 32)), 32
    for factor, outputs, blocks, first in (
        (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(blocks):
            stride, wide = 1 if block else first, inputs * factor
            y = x if factor == 1 else d.relu6(d.conv(x, inputs, wide, 1))
            y = d.conv(d.relu6(d.conv(y, wide, wide, stride=stride, groups=wide)), wide, outputs, 1)
            x, inputs = d.node("Add", x, y) if stride == 1 and inputs == outputs else y, outputs
    return d.model(d.relu6(d.conv(x, inputs, 1280, 1)), 1280)


NETWORKS = {"ResNet18": resnet18, "MobileNetV2": mobilenetv2}


def quantized(proto: onnx.ModelProto, images: np.ndarray, form: str, folder: Path) -> Path:
    """The network as onnxruntime quantizes it, calibrated on the images. form: QDQ or QOperator."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": images}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    source, target = folder / "float.onnx", folder / "integer.onnx"
    onnx.save(proto, source)
    quantization.quantize_static(source, target, Reader(), quantization.QuantFormat[form], per_channel=True,
                                 weight_type=quantization.QuantType.QInt8,
                                 activation_type=quantization.QuantType.QUInt8)  # fmt: skip
    return target


def session(path: Path, optimized: bool) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pixels() -> np.ndarray:
    return np.random.default_rng(1).random((BATCH, 3, SIZE, SIZE), dtype=np.float32)


def measured(path: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of both engines for a batch, their ratio, and how the outputs compare."""
    x, plan, theirs = pixels(), compile_plan(emulator.load(path)), session(path, optimized=True)
    name = plan.network.outputs[0]
    made, wanted = infer(plan, {"x": x})[name], session(path, optimized=False).run(None, {"x": x})[0]
    theirs.run(None, {"x": x})
    step = np.diff(np.unique(wanted)).min()
    apart = np.rint(np.abs(made - wanted) / step)
    times: dict[str, list[float]] = {"ours": [], "onnxruntime": []}
    for _ in range(rounds):
        for engine, call in (("ours", lambda: infer(plan, {"x": x})), ("onnxruntime", lambda: theirs.run(None, {"x": x}))):
            start = time.process_time()
            call()
            times[engine].append(1e3 * (time.process_time() - start))
    return {
        **{f"{engine} ms": statistics.median(own) for engine, own in times.items()},
        "times onnxruntime's speed": statistics.median(b / a for a, b in zip(*times.values(), strict=True)),
        "outputs equal": float(np.mean(apart == 0)),
        "largest difference, steps": float(apart.max()),
        "peak MB": peak_of(path),
        "of which before the batch": peak_of(path, images=0),
        "file MB": path.stat().st_size / 1e6,
    }


def peak_of(path: Path, images: int = BATCH) -> float:
    """Peak resident megabytes of a process of its own that runs the network on some images."""
    run = subprocess.run([sys.executable, __file__, "--peak", str(path), str(images)], capture_output=True, text=True, check=True)
    return float(run.stdout)


def peak(path: str, images: str) -> None:
    """Run the network and print the process's peak resident memory in megabytes (Linux)."""
    plan = compile_plan(emulator.load(Path(path)))
    if int(images):
        infer(plan, {"x": pixels()[: int(images)]})
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "IMAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(*arguments.peak)
        return
    rows: dict[str, dict[str, float]] = {}
    for name, form in itertools.product(NETWORKS, ("QDQ", "QOperator")):
        with tempfile.TemporaryDirectory() as folder:
            path = quantized(NETWORKS[name](), pixels()[:16], form, Path(folder))
            rows[f"{name}, {form}"] = row = measured(path, arguments.rounds)
            print(f"{name}, {form}", *(f"{key} {value:.3g}" for key, value in row.items()), sep="   ", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
