"""Every integer of a file is in the memory or named: files of real exporters, added up without the importer."""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.emulator.models import exported, model, node, quantized, quietly
from tests.emulator.test_importer_exporters import brevitas_network, images
from weakcell import emulator

WIDTHS = {
    TensorProto.INT2: 2, TensorProto.UINT2: 2, TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.INT8: 8, TensorProto.UINT8: 8,
    TensorProto.INT16: 16, TensorProto.UINT16: 16, TensorProto.INT32: 32, TensorProto.UINT32: 32, TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
}  # fmt: skip


def integer_bits(proto: onnx.ModelProto) -> int:
    """Bits of all integer tensors of a file: initializers and Constant nodes."""
    tensors = list(proto.graph.initializer)
    tensors += [a.t for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    return sum(WIDTHS.get(t.data_type, 0) * math.prod(t.dims) for t in tensors)


def check(proto: onnx.ModelProto, weights: int, latent: int = 0) -> emulator.Network:
    """All integers are counted once. weights: bits of the weights; latent: of those that the file keeps as floats."""
    network = emulator.load(proto)
    outside = sum(tensor.bits for tensor in network.unplaced)
    assert network.weight_bits + outside == integer_bits(proto) + latent == network.integer_bits
    assert network.weight_bits == weights
    assert all(tensor.reason and tensor.bits > 0 for tensor in network.unplaced)
    return network


class Signals(nn.Module):
    """1-D convolutions, one of them dilated in groups, a pool, a residual sum and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 8, 5, padding=2)
        self.second = nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.last = nn.Linear(8 * 10, 6)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.first(x))
        return self.last(nn.functional.max_pool1d(x + torch.relu(self.second(x)), 2).flatten(1))

    weights = 8 * 4 * 5 + 8 * 2 * 3 + 80 * 6


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))

    weights = 8 * 27 + 8 * 9 + 40


class Tokens(nn.Module):
    """An embedding, two projections and a table that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(30, 16), nn.Parameter(torch.randn(7, 16))
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, ids: Any) -> Any:
        return self.down(torch.relu(self.up(self.table(ids) + self.places))).mean(1)


@pytest.mark.parametrize("operators", [False, True], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("network", "shape"), [(Signals, (4, 20)), (Pictures, (3, 8, 8))])
def test_static_quantization(network: type, shape: tuple[int, ...], per_channel: bool, operators: bool) -> None:
    torch.manual_seed(3)
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)
    proto = quantized(exported(network(), shape, False), x, operators, per_channel=per_channel)
    check(proto, 8 * network.weights)  # type: ignore[attr-defined]


def test_static_quantization_of_an_embedding() -> None:
    """Gather of a quantized table, and an added table: onnxruntime writes codes for both."""
    torch.manual_seed(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import io

        buffer, ids = io.BytesIO(), torch.zeros(2, 7, dtype=torch.int64)
        names: dict[str, Any] = {"input_names": ["ids"], "output_names": ["y"], "dynamic_axes": {"ids": {0: "N"}, "y": {0: "N"}}}
        torch.onnx.export(Tokens().eval(), (ids,), buffer, dynamo=False, opset_version=17, **names)
    proto = quantized(onnx.load_from_string(buffer.getvalue()), np.random.default_rng(1).integers(0, 30, (8, 7)))
    added = 24 + 4  # the biases, which a MatMul of a sequence leaves to a float Add
    network = check(proto, 8 * (30 * 16 + 7 * 16 + 16 * 24 + 24 * 4 + added))
    assert all(tensor.registers for tensor in network.unplaced)


def test_dynamic_quantization(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    net = nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 18, 12), nn.ReLU(), nn.Linear(12, 5))
    onnx.save(exported(net, (4, 20), False), tmp_path / "float.onnx")
    with quietly():
        quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int.onnx", weight_type=QuantType.QUInt8)
    check(onnx.load(tmp_path / "int.onnx"), 8 * (8 * 4 * 3 + 8 * 18 * 12 + 12 * 5))


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_blocks(bits: int) -> None:
    """MatMulNBits with a last block that is not full: its padding is named."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    rng = np.random.default_rng(2)
    constants = {"a": rng.normal(size=(40, 24)).astype(np.float32), "b": rng.normal(size=(24, 6)).astype(np.float32)}
    nodes = [node("MatMul", "x a", "h"), node("Relu", "h", "r"), node("MatMul", "r b", "y")]
    proto = model(nodes, constants, {"x": ["N", 40]}, {"y": ["N", 6]})
    with quietly():
        quantizer = MatMulNBitsQuantizer(proto, bits=bits, block_size=16, is_symmetric=False)
        quantizer.process()
    made = quantizer.model.model
    made.ir_version = 10
    network = check(made, bits * (40 * 24 + 24 * 6))
    assert any("padding" in tensor.reason for tensor in network.unplaced)


@pytest.mark.parametrize("weight_bits", [2, 4, 8])
def test_brevitas(weight_bits: int, tmp_path: Path) -> None:
    """QCDQ holds int8 codes that a Clip narrows: the rest is named. QONNX holds latent floats: they count as they are stored."""
    net = brevitas_network(weight_bits, 8)
    from brevitas.export import export_onnx_qcdq, export_qonnx

    weights = weight_bits * sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    given = {"args": torch.from_numpy(images(1)), "export_path": str(tmp_path / "net.onnx")}
    with quietly():
        export_onnx_qcdq(net, dynamo=False, opset_version=13, **given)
    network = check(onnx.load(tmp_path / "net.onnx"), weights)
    assert any("stored in" in tensor.reason for tensor in network.unplaced) == (weight_bits < 8)
    with quietly():
        export_qonnx(net, **given)
    check(onnx.load(tmp_path / "net.onnx"), weights, weights)


def test_signs_made_in_the_graph() -> None:
    """BipolarQuant and Sign of latent floats: one bit each, also where an operator in float32 reads them."""
    rng = np.random.default_rng(6)
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in (("a", (12, 9)), ("b", (3, 9, 4)))}
    constants["s"] = np.float32(1)
    nodes = [
        helper.make_node("BipolarQuant", ["a", "s"], ["aq"], domain="qonnx.custom_op.general"), node("MatMul", "x aq", "h"),
        node("Sign", "b", "bq"), node("MatMul", "h bq", "y"),
    ]  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 3, 5, 12]}, {"y": ["N", 3, 5, 4]})
    proto.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    check(proto, 12 * 9 + 3 * 9 * 4, 12 * 9 + 3 * 9 * 4)


def test_what_stays_outside_has_a_reason() -> None:
    """A bias, zero points, a size, a scalar, an int8 vector in an integer layer, one that nothing reads: each by its own reason."""
    rng = np.random.default_rng(7)
    constants = {
        "xs": np.float32(0.1), "xz": np.uint8(9), "w": rng.integers(-9, 9, (6, 8)).astype(np.int8), "ws": np.float32(0.1),
        "b": rng.integers(-9, 9, 6).astype(np.int32), "bs": np.float32(0.01), "v": rng.integers(1, 9, 6).astype(np.int8),
        "vs": np.float32(0.5), "k": np.int8(3), "shape": np.array([0, 2, 3], np.int64), "spare": np.zeros(5, np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "q xs xz", "d"), node("DequantizeLinear", "w ws", "wd"),
        node("DequantizeLinear", "b bs", "bd"), node("Gemm", "d wd bd", "h", transB=1), node("DequantizeLinear", "v vs", "vd"),
        node("Mul", "h vd", "m"), node("DequantizeLinear", "k vs", "kd"), node("Add", "m kd", "a"),
        node("QuantizeLinear", "a xs xz", "aq"), node("DequantizeLinear", "aq xs xz", "ad"), node("Reshape", "ad shape", "y"),
    ]  # fmt: skip
    network = check(model(nodes, constants, {"x": ["N", 8]}, {"y": ["N", 2, 3]}), 6 * 8 * 8)
    reasons = {tensor.name: tensor.reason for tensor in network.unplaced}
    starts = {"xz": "zero point", "b": "bias", "shape": "sizes", "v": "input 1 of Mul", "k": "a single number", "spare": "no node"}
    assert set(reasons) == set(starts)
    assert all(reasons[name].startswith(start) for name, start in starts.items())


def test_external_and_constant_node_tensors() -> None:
    """Weights in Constant nodes, and in a file beside the model."""
    w = np.random.default_rng(8).integers(-9, 9, (6, 8)).astype(np.int8)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w)), node("DequantizeLinear", "w s", "wd"),
        node("Gemm", "x wd", "y", transB=1),
    ]  # fmt: skip
    check(model(nodes, {"s": np.float32(0.1)}, {"x": ["N", 8]}, {"y": ["N", 6]}), 6 * 8 * 8)
    proto = model(nodes[1:], {"s": np.float32(0.1), "w": w}, {"x": ["N", 8]}, {"y": ["N", 6]})
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(proto, Path(folder) / "net.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
        assert emulator.load(Path(folder) / "net.onnx").weight_bits == 6 * 8 * 8
