"""Layers of several bits, and the export of every architecture. Oracles: onnxruntime, the qonnx package, equations."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from tests.emulator.models import qonnx_values
from weakcell import emulator
from weakcell.host.train import export, loop
from weakcell.host.train.layers import (
    Levels,
    StoredLinear,
    clamp_latent,
    list_stored_layers,
    quantize_latent,
    quantize_min_max,
    remove_output_scale,
    use_min_max_codes,
)
from weakcell.host.train.networks import ARCHITECTURES, append_output_scale, fcnn
from weakcell.host.train.qonnx_export import to_qonnx
from weakcell.memmodels.errors import ModelError


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def seen(network: torch.nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels, after the batch norms of `network` have seen some like them."""
    pixels = np.random.default_rng(1).integers(0, 256, (24, *shape), np.uint8)
    network.train()
    for _ in range(3):
        network(torch.tensor(pixels).float())
    return pixels


# ── layers of several bits, and their export ────────────────────────────────────────────────────────


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantizers_are_onnx_quantize_linear(bits: int) -> None:
    rng = np.random.default_rng(3)
    ties = np.arange(-40, 41) * 2.0**-bits
    x = torch.tensor(np.concatenate([rng.normal(0, 2, 500), ties, [-1e9, 1e9, -0.0]]), dtype=torch.float32)
    for signed in (False, True):
        levels = Levels(bits, signed).eval()
        low, high = levels.codes
        expected = np.clip(np.rint(x.numpy() / np.float32(levels.step)), low, high) * np.float32(levels.step)
        assert np.array_equal(levels(x).numpy(), expected)
    codes = quantize_latent(x, bits) * (1 << (bits - 1))
    assert torch.equal(codes, codes.round())
    assert codes.min() == -(1 << (bits - 1))
    assert codes.max() == (1 << (bits - 1)) - 1


@pytest.mark.parametrize(
    ("name", "bits"),
    [*product(["fcnn", "vgg3"], [1, 2, 4, 8]), *product(["vgg7", "resnet18", "mobilenetv2"], [1, 4])],
)
def test_every_architecture_computes_the_same_in_torch_onnxruntime_and_engine(name: str, bits: int) -> None:
    loop.seed(2)
    network = ARCHITECTURES[name]((3, 16, 16), 10, bits, 0.07)
    pixels = seen(network, (3, 16, 16))
    model = export.pack(export.to_onnx(network, (3, 16, 16)), bits)
    ours, reference = loop.logits(network, pixels), export.logits(model, pixels)
    export.require_equal_logits(reference, ours, share=0.2 if bits == 8 else 0.0)
    deployed = emulator.load(model)
    outputs = emulator.infer(emulator.compile_plan(deployed), {deployed.inputs[0]: pixels})
    assert np.array_equal(next(iter(outputs.values())), reference)
    assert {tensor.encoding.bits for tensor in deployed.weights} == {bits}


@pytest.mark.parametrize(("name", "bits"), [("fcnn", 1), ("vgg3", 1), ("vgg3", 2), ("fcnn", 4), ("resnet18", 4), ("vgg3", 8)])
def test_qonnx_is_the_same_network_to_the_engine_and_to_the_qonnx_package(name: str, bits: int) -> None:
    loop.seed(5)
    network = ARCHITECTURES[name]((1, 12, 12), 10, bits, 0.07)
    pixels = seen(network, (1, 12, 12))
    export.center_thresholds(network)
    model = export.pack(export.to_onnx(network, (1, 12, 12)), bits)
    written = to_qonnx(model, bits)
    plain, other = emulator.load(model), emulator.load(written)
    assert [tensor.encoding for tensor in other.weights] == [tensor.encoding for tensor in plain.weights]
    expected = emulator.infer(emulator.compile_plan(plain), {"input": pixels})["logits"]
    assert np.array_equal(emulator.infer(emulator.compile_plan(other), {"input": pixels})["logits"], expected)
    written.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2  # the package runs fixed shapes
    assert np.array_equal(qonnx_values(written, pixels.astype(np.float32)[:2])["logits"], expected[:2])


def test_weights_are_stored_as_narrow_codes() -> None:
    for bits, kind in ((1, "int2"), (2, "int2"), (4, "int4"), (8, "int8")):
        network = fcnn((1, 4, 4), 3, bits, 0.01)
        seen(network, (1, 4, 4))
        model = export.pack(export.to_onnx(network, (1, 4, 4)), bits)
        stored = {t.name: numpy_helper.to_array(t).dtype.name for t in model.graph.initializer if t.name.endswith(".weight")}
        assert {stored[f"dense{number}.weight"] for number in (1, 2, 3)} == {kind}
        kinds = Counter(node.op_type for node in model.graph.node)
        assert kinds["QuantizeLinear"] == (0 if bits == 1 else 3)


def test_settled_thresholds_answer_the_same_and_lie_between_integers() -> None:
    loop.seed(4)
    network = ARCHITECTURES["vgg3"]((1, 8, 8), 10, 1, 0.2)
    pixels = seen(network, (1, 8, 8))
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, -1, 1)
            torch.nn.init.uniform_(module.bias, -1, 1)
    before = loop.logits(network, pixels)
    export.center_thresholds(network)
    assert np.array_equal(loop.logits(network, pixels), before)
    norms = export.find_threshold_norms(network)
    assert len(norms) == 3
    for norm in norms:
        thresholds = norm.running_mean - norm.bias * torch.sqrt(norm.running_var + norm.eps) / norm.weight
        inside = thresholds.abs() < 1000
        assert ((thresholds[inside] % 1 - 0.5).abs() < 0.01).all()


def test_weights_of_another_width_are_refused() -> None:
    network = fcnn((1, 4, 4), 3, 4, 0.01)
    seen(network, (1, 4, 4))
    with pytest.raises(ModelError, match="1-bit"):
        export.pack(export.to_onnx(network, (1, 4, 4)), 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_min_max_codes_are_their_equation(bits: int) -> None:
    w = np.random.default_rng(9).normal(0.3, 0.2, (30, 20)).astype(np.float32)
    expected = np.rint((w - w.min()) * ((2**bits - 1) / (w.max() - w.min()))) - 2 ** (bits - 1)
    codes = quantize_min_max(torch.tensor(w), bits).numpy()
    assert np.array_equal(codes, expected)
    assert (codes.min(), codes.max()) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert torch.equal(quantize_min_max(torch.full((3,), 0.25), bits), torch.full((3,), -(2.0 ** (bits - 1))))


@pytest.mark.parametrize(("name", "bits"), [("fcnn", 2), ("vgg3", 2), ("vgg3", 4), ("fcnn", 8), ("vgg7", 4), ("resnet18", 4)])
def test_min_max_codes_and_biases_are_exported_exactly(name: str, bits: int) -> None:
    """Stored integers of weights and biases, and the logits of onnxruntime, the engine and torch, are the same."""
    loop.seed(6)
    network = ARCHITECTURES[name]((3, 16, 16), 10, bits, 0.07)
    use_min_max_codes(network)
    pixels = seen(network, (3, 16, 16))
    model = export.pack(export.to_onnx(network, (3, 16, 16)), bits, 1.0)
    stored = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in model.graph.initializer}
    for layer_name, layer in list_stored_layers(network):
        assert np.array_equal(stored[f"{layer_name}.weight"], quantize_min_max(layer.weight.detach(), bits).numpy())
        assert np.array_equal(stored[f"{layer_name}.bias"], quantize_min_max(layer.bias.detach(), bits).numpy())
    ours, reference = loop.logits(network, pixels), export.logits(model, pixels)
    export.require_equal_logits(reference, ours, share=0.2 if bits == 8 else 0.0)
    deployed = emulator.load(model)
    outputs = emulator.infer(emulator.compile_plan(deployed), {deployed.inputs[0]: pixels})
    assert np.array_equal(next(iter(outputs.values())), reference)
    assert {tensor.encoding.bits for tensor in deployed.weights} == {bits}


@pytest.mark.parametrize(("name", "bits"), [("fcnn", 1), ("vgg3", 4), ("resnet18", 1), ("mobilenetv2", 8), ("vgg7", 2)])
def test_output_scale_changes_no_answer_no_file_and_no_margin(name: str, bits: int) -> None:
    """onnxruntime answers on the export what torch answers with the scale. The file is the one of a network without it."""
    loop.seed(8)
    network = ARCHITECTURES[name]((3, 16, 16), 10, bits, 0.07)
    pixels = seen(network, (3, 16, 16))
    plain = export.pack(export.to_onnx(network, (3, 16, 16)), bits)
    append_output_scale(network, 0.013, bits)
    scaled = loop.logits(network, pixels)
    model = export.pack(export.to_onnx(network, (3, 16, 16)), bits)
    assert model.SerializeToString() == plain.SerializeToString()
    raw = export.logits(model, pixels)
    assert np.array_equal(scaled.argmax(1), raw.argmax(1))
    assert remove_output_scale(network) == pytest.approx(0.013)
    export.require_equal_logits(raw, loop.logits(network, pixels), share=0.2 if bits == 8 else 0.0)
    assert scaled == pytest.approx(raw * 0.013, rel=1e-4, abs=1e-3)


def test_output_scale_starts_where_asked_learns_and_stays_positive() -> None:
    network = fcnn((1, 4, 4), 3, 4, 0.01)
    for start, bits, expected in (("papers", 1, 1e-3), ("papers", 4, 1e-5), ("fan-in", 4, 20**-0.5), (0.3, 4, 0.3)):
        append_output_scale(network, start, bits)
        assert network.output_scale.scale.item() == pytest.approx(expected)
    outputs = network(torch.zeros(2, 1, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.zeros(2, 1, 4, 4)).dtype == torch.float32
    outputs.square().sum().backward()
    assert network.output_scale.scale.grad is not None
    network.output_scale.scale.data.fill_(-1)
    clamp_latent(network)
    assert network.output_scale.scale.item() == pytest.approx(0.003)


def test_bfloat16_products_are_exact_for_codes_and_the_head_stays_float32() -> None:
    loop.seed(1)
    for bits in (1, 4):
        head = StoredLinear(300, 10, bits, head=True).train()
        x = torch.randint(0, 16, (8, 300)).float()
        exact = head(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(head(x.bfloat16()), exact)
