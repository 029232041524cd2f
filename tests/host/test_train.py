"""Training, export and the shipped networks."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from weakcell.host.datasets import training
from weakcell.host.datasets.readers import read_idx
from weakcell.host.train import export, loop
from weakcell.host.train.__main__ import SHIPPED, main
from weakcell.host.train.layers import Sign, StoredConv2d, StoredLinear, clamp_latent, straight_through
from weakcell.host.train.losses import CrossEntropy
from weakcell.host.train.networks import digits_bnn, network
from weakcell.memmodels.errors import InputError, ModelError

FACTS = {"dataset", "preprocessing", "loss", "seed", "epochs", "test_accuracy", "made_by"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests share their cores with other tests, and results depend on torch's number of threads."""
    torch.set_num_threads(1)


def tiny_bnn() -> nn.Sequential:
    """[N, 1, 8, 8] → [N, 10], untrained, its batch norms having seen one batch of pixels."""
    loop.seed(3)
    layers = network(
        conv1=StoredConv2d(1, 8),
        pool1=nn.MaxPool2d(2),
        norm1=nn.BatchNorm2d(8, momentum=1.0),
        sign1=Sign(),
        flatten=nn.Flatten(),
        dense2=StoredLinear(128, 24),
        norm2=nn.BatchNorm1d(24, momentum=1.0),
        sign2=Sign(),
        dense3=StoredLinear(24, 10),
    )
    layers(torch.from_numpy(pixels(64)).float())
    return layers.eval()


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 17, (count, 1, 8, 8), np.uint8)


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The stored tensors that convolutions and Gemms multiply by, seen through DequantizeLinear."""
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    return {name: numpy_helper.to_array(stored[source.get(name, name)]) for name in names}


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_layers_multiply_by_plus_minus_one() -> None:
    loop.seed(0)
    assert set(StoredLinear(32, 16)(torch.eye(32)).unique().tolist()) == {-1.0, 1.0}
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 1
    assert set(StoredConv2d(1, 16)(point)[..., 1:4, 1:4].unique().tolist()) == {-1.0, 1.0}


def test_sign_is_onnx_sign() -> None:
    assert Sign()(torch.tensor([-3.0, -0.0, 0.0, 1e-30])).tolist() == [-1, 0, 0, 1]


def test_gradient_passes_straight_through_inside_one() -> None:
    x = torch.tensor([-2.0, -1.0, -0.3, 0.4, 1.0, 1.5], requires_grad=True)
    (Sign()(x) * torch.arange(1.0, 7.0)).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 3.75), (-4.0, 3.5)])
def test_gradients_pass_up_to_both_limits_and_not_beyond(low: float, high: float, dtype: torch.dtype) -> None:
    """The oracle is the definition: the gradient times (low ≤ x) times (x ≤ high), bit for bit."""
    ends = torch.tensor([low, high], dtype=dtype)
    beyond = [torch.nextafter(ends, torch.tensor([way, way], dtype=dtype)) for way in (-torch.inf, torch.inf)]
    x = torch.cat([ends, *beyond, torch.linspace(-5, 5, 99).to(dtype), torch.tensor([0.0, -0.0], dtype=dtype)]).requires_grad_()
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    straight_through(x, torch.sign(x.detach()), low, high).backward(gradient)
    expected = gradient * ((x >= low) & (x <= high))
    assert x.grad is not None
    assert torch.equal(x.grad, expected)
    assert 0 < int((expected == 0).sum()) < len(x)


def test_order_of_the_bytes_changes_no_sum_and_pooling_gets_channels_last() -> None:
    """Sums of ±1 times pixels are exact integers, whatever the order; torch's own order for one channel would be NCHW."""
    bnn = tiny_bnn().to(memory_format=torch.channels_last)
    images = torch.from_numpy(pixels(9))
    sums = bnn.conv1(loop.to_float(images))
    assert torch.equal(sums, bnn.conv1(images.float()))
    assert torch.equal(bnn(loop.to_float(images)), bnn(images.float()))
    assert sums.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layer", [StoredLinear(6, 4), StoredConv2d(2, 3)])
def test_latent_weights_get_the_gradient_of_the_binary_ones(layer: StoredLinear | StoredConv2d) -> None:
    loop.seed(1)
    x = torch.randn((5, 6) if isinstance(layer, StoredLinear) else (5, 2, 4, 4))
    plain = layer.deployed()
    layer(x).square().sum().backward()
    plain(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)


def test_latent_weights_stay_within_one() -> None:
    layer = nn.Sequential(StoredLinear(4, 4))
    layer[0].weight.data *= 100
    clamp_latent(layer)
    assert layer[0].weight.abs().max() == 1


def test_export_keeps_binary_weights_and_batch_norms() -> None:
    bnn = tiny_bnn()
    model = export.to_onnx(bnn, (1, 8, 8))
    binarization = ["BatchNormalization", "Sign"]
    assert operators(model) == ["Conv", "MaxPool", *binarization, "Flatten", "Gemm", *binarization, "Gemm"]
    assert all((np.abs(values) == 1).all() for values in weights(model).values())
    assert np.array_equal(export.logits(model, pixels(100)), loop.logits(bnn, pixels(100)))


def test_packed_weights_mean_the_same() -> None:
    model = export.to_onnx(tiny_bnn(), (1, 8, 8))
    packed = export.pack(model, 1)
    assert packed.ByteSize() < model.ByteSize()
    assert np.array_equal(export.logits(packed, pixels(100)), export.logits(model, pixels(100)))


def test_an_export_that_differs_is_refused() -> None:
    export.require_equal_logits(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ModelError, match="1 of 3 images"):
        export.require_equal_logits(np.ones((3, 2)), np.array([[1, 1], [1, 1], [1, 3]]))


def test_training_learns_and_repeats() -> None:
    data = training.load_training_digits(SHIPPED)
    runs = []
    for _ in range(2):
        loop.seed(7)
        bnn = digits_bnn()
        schedule = loop.Schedule(epochs=1, halve_every=1, batch=64)
        loop.train(bnn, CrossEntropy(96**-0.5), schedule, data.train, data.validation)
        runs.append(loop.logits(bnn, data.validation.images))
    assert np.array_equal(*runs)
    assert loop.accuracy(runs[0], data.validation.labels) > 0.5


def test_digits_are_whole_and_split() -> None:
    data = training.load_training_digits(SHIPPED)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1147, 200, 450]
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert max(part.images.max() for part in (data.train, data.validation, data.test)) == 16


@pytest.mark.parametrize("name", ["digits_bnn", "digits_qnn", "fashion_bnn"])
def test_shipped_networks_say_how_they_were_made(name: str) -> None:
    model = onnx.load(SHIPPED / f"{name}.onnx")
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts.keys() == FACTS
    # The files keep the module's name of the time when they were made: their digests are part of saved results.
    assert facts["made_by"].startswith(f"python -m host.train {name.replace('_', '-')} --seed {facts['seed']}")
    assert model.producer_name == "weakcell"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("name", ["digits_bnn", "fashion_bnn"])
def test_shipped_binary_weights_are_plus_minus_one(name: str) -> None:
    model = onnx.load(SHIPPED / f"{name}.onnx")
    assert len(weights(model)) == 4
    assert all((np.abs(values.astype(np.float32)) == 1).all() for values in weights(model).values())


def test_shipped_quantized_weights_are_int8() -> None:
    tensors = weights(onnx.load(SHIPPED / "digits_qnn.onnx"))
    assert [values.dtype for values in tensors.values()] == [np.int8] * 4


@pytest.mark.parametrize("name", ["digits_bnn", "digits_qnn"])
def test_shipped_digits_networks_are_as_accurate_as_they_say(name: str) -> None:
    model = onnx.load(SHIPPED / f"{name}.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    test = training.load_training_digits(SHIPPED).test
    outputs = export.logits(model, test.images)
    assert name != "digits_bnn" or np.array_equal(outputs, np.rint(outputs))
    assert loop.accuracy(outputs, test.labels) == pytest.approx(float(facts["test_accuracy"]), abs=0.005)


def test_images_without_their_labels_are_refused() -> None:
    with pytest.raises(InputError, match="3 images, 2 labels"):
        training.LabelledImages(np.zeros((3, 1, 8, 8), np.uint8), np.zeros(2, np.uint8))


def test_command_writes_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits-qnn", "--epochs", "1", "--threads", "1", "--out", str(tmp_path / "net.onnx")]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert {"QuantizeLinear", "DequantizeLinear"} < set(operators(onnx.load(tmp_path / "net.onnx")))


def test_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fashion-bnn", "--data-dir", str(tmp_path), "--out", str(tmp_path / "net.onnx")]) == 3
    assert main(["digits-bnn", "--out", str(tmp_path / "nowhere" / "net.onnx")]) == 6
    assert main(["digits-bnn", "--out", str(tmp_path)]) == 6
    assert "train-images-idx3-ubyte.gz" in capsys.readouterr().err


def test_idx_files_are_read_plain_and_compressed(tmp_path: Path) -> None:
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)])
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(content))
    for name in ("plain", "packed.gz"):
        assert read_idx(tmp_path / name).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\x03\0\0", b"\0\0\x08\x01\0\0\0\x05abc", b"\x1f\x8b broken"],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="IDX"):
        read_idx(tmp_path / "file")
