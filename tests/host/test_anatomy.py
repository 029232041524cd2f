"""`inspect`: products counted by hand, tensors outside the memory, and networks without quantized weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.emulator.models import model, node
from tests.emulator.test_importer_conv_transpose import WINDOWS, conv_transpose_qdq
from tests.emulator.test_stored_operands import CASES
from weakcell import emulate, emulator
from weakcell.host.analysis.network_summary import summarize_network
from weakcell.host.study.results_folder import configuration_of
from weakcell.memmodels.errors import ModelError

MACS = {
    "three axes": 3 * 4 * 6 * 5, "einsum": 3 * 4 * 6 * 5, "volumes": 4 * 2 * 3 * 3 * 2 * 8, "signals": 6 * 6 * 2 * 3,
    "on the left": 5 * 6 * 4, "cast, scale, offset": 20 * 10, "tied embedding": 24 * 12, "embedding": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", MACS)
def test_products_of_stored_operands(name: str) -> None:
    """Multiply-accumulates of one image."""
    assert summarize_network(emulator.load(CASES[name]()[0])).macs == MACS[name]


def test_outside_tensors_are_named(tmp_path: object) -> None:
    """`inspect` and study.json name what is outside, with its share; the caption names what is no bias, zero point or size."""
    rng = np.random.default_rng(3)
    constants = {
        "xs": np.float32(0.1), "xz": np.uint8(9), "w": rng.integers(-9, 9, (6, 8)).astype(np.int8), "ws": np.float32(0.1),
        "v": rng.integers(1, 9, 6).astype(np.int8), "vs": np.float32(0.5),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "q xs xz", "d"), node("DequantizeLinear", "w ws", "wd"),
        node("Gemm", "d wd", "h", transB=1), node("DequantizeLinear", "v vs", "vd"), node("Mul", "h vd", "y"),
    ]  # fmt: skip
    proto = model(nodes, constants, {"x": ["N", 8]}, {"y": ["N", 6]})
    summary = summarize_network(emulator.load(proto))
    shares = {item.name: item.share for item in summary.outside}
    assert shares == {"v": pytest.approx(48 / (384 + 48 + 8)), "xz": pytest.approx(8 / (384 + 48 + 8))}
    assert all(name in summary.explanation for name in shares)
    path = f"{tmp_path}/net.onnx"
    onnx.save(proto, path)
    np.savez(f"{tmp_path}/data.npz", x=rng.normal(size=(5, 8)).astype(np.float32), y=np.arange(5))
    found = emulate(path, f"{tmp_path}/data.npz", memory="uniform:ber=0.1", trials=2)
    listed = configuration_of(found)["model"]["outside"]
    assert {row["name"]: row["share"] for row in listed} == shares
    assert "Not in the memory: v" in found.caption
    assert "xz" not in found.caption


def test_a_float_network_is_told_so(tmp_path: object) -> None:
    proto = model([node("MatMul", "x w", "y")], {"w": np.eye(3, 4, dtype=np.float32) + 0.3}, {"x": ["N", 3]}, {"y": ["N", 4]})
    path = f"{tmp_path}/net.onnx"
    onnx.save(proto, path)
    np.savez(f"{tmp_path}/data.npz", x=np.ones((5, 3), np.float32), y=np.zeros(5, np.int64))
    with pytest.raises(ModelError, match="quantized"):
        emulate(path, f"{tmp_path}/data.npz")
    assert "No weight" in summarize_network(emulator.load(proto)).explanation


@pytest.mark.parametrize("window", ["strided", "uneven", "grouped"])
def test_products_of_a_transposed_convolution(window: str, rng: np.random.Generator) -> None:
    """Each weight meets each input pixel once: input pixels times weights of the file, whatever the stride."""
    proto = conv_transpose_qdq(rng, WINDOWS[window])
    weights = next(t for t in proto.graph.initializer if t.name == "w")
    assert summarize_network(emulator.load(proto)).macs == 6 * 5 * int(np.prod(weights.dims))
