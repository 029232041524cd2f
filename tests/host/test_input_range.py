"""The range of each input, as the files of real exporters say it, and warnings for data that do not fit it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tests.emulator.models import exported, model, node, quantized
from weakcell.emulator.importer import load
from weakcell.host.datasets.input_range import check_data, input_ranges
from weakcell.host.study.workload import open_workload

SHAPE = (1, 8, 8)


def images(low: float, high: float, count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (count, *SHAPE)).astype(np.float32)


class Scaled(nn.Module):
    """A network that scales raw pixels itself: (x / 255 - 0.5) / 0.25."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body((x / 255.0 - 0.5) / 0.25)


def network(scaled: bool = False) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    return Scaled(body) if scaled else body


@pytest.fixture(scope="module")
def for_unit_range() -> onnx.ModelProto:
    """torch's exporter and onnxruntime's static quantizer, calibrated on 0 … 1."""
    return quantized(exported(network(), SHAPE, False), images(0, 1))


@pytest.fixture(scope="module")
def for_pixels() -> onnx.ModelProto:
    """The same, calibrated on 0 … 255."""
    return quantized(exported(network(), SHAPE, False), images(0, 255))


def warnings_of(proto: onnx.ModelProto, x: np.ndarray) -> list[str]:
    found = load(proto)
    return [check.warning for check in check_data(found, {found.inputs[0]: x}, "mine") if check.warning]


def test_range_of_a_static_quantizer(for_unit_range: onnx.ModelProto, for_pixels: onnx.ModelProto) -> None:
    for proto, high in ((for_unit_range, 1.0), (for_pixels, 255.0)):
        (known,) = input_ranges(load(proto))
        assert (known.name, known.shape, known.dtype) == ("x", SHAPE, "float32")
        assert known.low == pytest.approx(0, abs=high / 100)
        assert known.high == pytest.approx(high, rel=0.02)
        assert "QuantizeLinear" in known.quantizer


def test_pixels_saturate_a_network_for_unit_range(for_unit_range: onnx.ModelProto) -> None:
    (warning,) = warnings_of(for_unit_range, images(0, 255))
    assert "beyond the range" in warning
    assert "exactly as stored" in warning
    assert warnings_of(for_unit_range, images(0, 1)) == []


def test_a_few_outliers_are_no_saturation(for_unit_range: onnx.ModelProto) -> None:
    x = images(0, 1)
    x[:, :, 0, :2] = 3.0  # 2 of 64 values
    assert warnings_of(for_unit_range, x) == []
    x[:, :, 0, :4] = 3.0  # 4 of 64: more than 5 %
    assert len(warnings_of(for_unit_range, x)) == 1


def test_values_at_the_ends_are_inside(for_unit_range: onnx.ModelProto) -> None:
    """Black and white images: every value is at an end of the range, and none beyond."""
    assert warnings_of(for_unit_range, np.rint(images(0, 1))) == []


def test_unit_range_hardly_fills_a_network_for_pixels(for_pixels: onnx.ModelProto) -> None:
    (warning,) = warnings_of(for_pixels, images(0, 1))
    assert "span" in warning
    assert warnings_of(for_pixels, images(0, 255)) == []


def test_scaling_inside_the_network_counts() -> None:
    """The quantizer behind (x / 255 - 0.5) / 0.25 covers -2 … 2: 0 … 255 in the input's own unit."""
    proto = quantized(exported(network(scaled=True), SHAPE, False), images(0, 255), op_types_to_quantize=["Conv", "Gemm"])
    (known,) = input_ranges(load(proto))
    assert known.low == pytest.approx(0, abs=3)
    assert known.high == pytest.approx(255, abs=3)
    assert warnings_of(proto, images(0, 255)) == []
    assert len(warnings_of(proto, images(0, 1))) == 1
    assert len(warnings_of(proto, images(-1000, 1000))) == 1


def test_float_dynamic_and_integer_inputs() -> None:
    from onnxruntime.quantization import quantize_dynamic

    plain = exported(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), SHAPE, False)
    (known,) = input_ranges(load(plain))
    assert (known.low, known.high, known.text) == (None, None, "any")
    assert known.quantizer.startswith("none")
    dynamic = quantize_dynamic_of(plain, quantize_dynamic)
    (known,) = input_ranges(load(dynamic))
    assert "whatever comes" in known.quantizer
    assert warnings_of(plain, images(0, 1e6)) == warnings_of(dynamic, images(0, 1e6)) == []
    nodes = [node("DequantizeLinear", "x s z", "y")]
    codes = model(nodes, {"s": np.float32(0.1), "z": np.uint8(3)}, {"x": ["N", 4]}, {"y": ["N", 4]}, types={"x": TensorProto.UINT8})
    (known,) = input_ranges(load(codes))
    assert (known.dtype, known.low, known.high) == ("uint8", 0.0, 255.0)
    (warning,) = warnings_of(codes, np.array([[0, 1, 1, 0]], np.uint8))
    assert "span" in warning


def quantize_dynamic_of(proto: onnx.ModelProto, quantize: object) -> onnx.ModelProto:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int.onnx"
        onnx.save(proto, source)
        quantize(source, target)  # type: ignore[operator]
        return onnx.load(target)


def test_qonnx_quantizer_and_binarizer() -> None:
    quant = helper.make_node("Quant", ["x", "s", "z", "b"], ["q"], "q", domain="qonnx.custom_op.general", signed=1, narrow=0)
    constants = {"s": np.float32(0.5), "z": np.float32(0), "b": np.float32(4), "w": np.ones((4, 2), np.float32)}
    proto = model([quant, node("MatMul", "q w", "y")], constants, {"x": ["N", 4]}, {"y": ["N", 2]})
    proto.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    (known,) = input_ranges(load(proto))
    assert (known.low, known.high) == (-4.0, 3.5)
    nodes = [node("Sign", "x", "s"), node("MatMul", "s w", "y")]
    proto = model(nodes, {"w": np.ones((4, 2), np.float32)}, {"x": ["N", 4]}, {"y": ["N", 2]})
    (known,) = input_ranges(load(proto))
    assert "signs around 0" in known.quantizer
    assert len(warnings_of(proto, np.full((3, 4), 7, np.float32))) == 1
    assert warnings_of(proto, np.array([[1, -1, 1, 1]], np.float32)) == []


def test_bench_warns_and_keeps_the_check(for_unit_range: onnx.ModelProto, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    onnx.save(for_unit_range, tmp_path / "net.onnx")
    np.savez(tmp_path / "raw.npz", x=images(0, 255), y=np.arange(40) % 10)
    with caplog.at_level(logging.WARNING):
        workload = open_workload(str(tmp_path / "net.onnx"), str(tmp_path / "raw.npz"))
    said = [record.message for record in caplog.records if not record.message.startswith("Compiling")]  # with an empty cache
    assert said == [workload.inputs[0].warning]
    assert workload.inputs[0].outside is not None
    assert workload.inputs[0].outside > 0.9


def test_command_line(for_unit_range: onnx.ModelProto, tmp_path: Path) -> None:
    """One line on stderr, the check in study.json, and the range in `inspect`."""
    onnx.save(for_unit_range, tmp_path / "net.onnx")
    np.savez(tmp_path / "raw.npz", x=images(0, 255), y=np.arange(40) % 10)

    def weakcell(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "weakcell.host.cli", *arguments]
        return subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path, env=None)

    few = ("--memory", "uniform:ber=0.01", "--trials", "2")
    made = weakcell("emulate", "net.onnx", "--data", "raw.npz", *few, "--out", "results")
    assert made.stderr.count("Warning: ") == 1
    assert "beyond the range" in made.stderr
    (check,) = json.loads((tmp_path / "results" / "study.json").read_text())["inputs"]
    assert check["outside"] > 0.9
    assert check["warning"] in made.stderr
    (known,) = json.loads(weakcell("inspect", "net.onnx", "--json").stdout)["inputs"]
    assert (known["name"], known["dtype"], known["shape"]) == ("x", "float32", list(SHAPE))
    assert known["high"] == pytest.approx(1, rel=0.02)
    assert "x: float32 [N, 1, 8, 8]" in weakcell("inspect", "net.onnx").stdout
