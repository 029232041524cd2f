"""Families of networks through the tools that people use, engine against onnxruntime.

python -m tests.emulator.families [--family lstm] [--way dynamic]

Each cell is one small network, made by the real tool: imported, compared with onnxruntime (all optimizations off, one image after
the other), and run once with errors in its weights. A cell says

    equal    every output is onnxruntime's, bit for bit
    close    the outputs differ by float noise, or by steps of a quantizer that it moved (relative to the largest output)
    APART    they differ by more
    refused  the importer names a reason and a remedy
    -        the tool cannot make the network (it fails, or has nothing to quantize)

and how many of the file's integers live in the memory.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.emulator.models import Array, quantized, quietly, run
from weakcell import emulator
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import ModelError

BATCH = 3
"""Some exporters fix it in the file."""


# ── families ──────────────────────────────────────────────────────────────────────────────────────────


class Encoder(nn.Module):
    """Token embedding, one of torch's encoder layers, mean over the tokens, classes (BERT)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Parameter(torch.randn(1, 12, 16))
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True)
        self.last = nn.Linear(16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.layer(self.words(ids) + self.places).mean(1))


class RootMeanSquare(nn.Module):
    """RMS norm written out, as language models do."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Decoder(nn.Module):
    """A causal block with scaled dot-product attention, RMS norm, a gated feed-forward layer, and tied embeddings (LLaMA, GPT)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.qkv, self.out = nn.Embedding(50, 16), nn.Linear(16, 48, bias=False), nn.Linear(16, 16, bias=False)
        self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((16, 32), (16, 32), (32, 16)))
        self.first, self.second, self.last = RootMeanSquare(16), RootMeanSquare(16), RootMeanSquare(16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        q, k, v = (p.unflatten(-1, (4, 4)).transpose(1, 2) for p in self.qkv(self.first(x)).chunk(3, -1))
        x = x + self.out(f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        h = self.second(x)
        x = x + self.down(f.silu(self.gate(h)) * self.up(h))
        return self.last(x) @ self.words.weight.T


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.layer, self.last = (
            nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.last(self.layer(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))[:, 0])


class Recurrent(nn.Module):
    """A recurrent layer on a signal, and classes from its last state."""

    def __init__(self, kind: str, two_ways: bool = False) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(6, 8, batch_first=True, bidirectional=two_ways)
        self.last = nn.Linear(16 if two_ways else 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x)[0][:, -1])


class KeywordSpotter(nn.Module):
    """1-D convolutions on features of audio (M5, TC-ResNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(6, 16, 5, 2, 2), nn.Conv1d(16, 16, 3, padding=2, dilation=2)
        self.norms, self.last = nn.ModuleList([nn.BatchNorm1d(16), nn.BatchNorm1d(16)]), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = f.relu(self.norms[0](self.first(x)))
        x = f.relu(self.norms[1](self.second(x)) + x)
        return self.last(x.mean(2))


class Heartbeat(nn.Module):
    """A 1-D network on one channel with max pools, as those of ECG."""

    def __init__(self, length: int = 64, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, width, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
            nn.Flatten(), nn.Linear(width * length // 2, 5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ConvMixer(nn.Module):
    """Depthwise convolution, LayerNorm over channels, GELU (ConvNeXt)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth, self.norm = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.LayerNorm(16)
        self.up, self.down, self.last = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = self.down(f.gelu(self.up(self.norm(self.depth(x).permute(0, 2, 3, 1)))))
        return self.last((x + h.permute(0, 3, 1, 2)).mean((2, 3)))


class Segmenter(nn.Module):
    """A U-Net with group norm and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.norm, self.up, self.last = nn.GroupNorm(4, 16), nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = f.relu(self.down(x))
        b = f.relu(self.norm(self.deep(a)))
        return self.last(torch.cat([a, self.up(b)], 1))


class Video(nn.Module):
    """3-D convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv3d(2, 6, 3, padding=1), nn.Conv3d(6, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(f.relu(self.second(f.relu(self.first(x)))).mean((2, 3, 4)))


class Gated(nn.Module):
    """Linear layers, a causal convolution, softmax weights and a product of activations (Mamba, MLP-mixer)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.conv, self.down, self.score = (
            nn.Linear(6, 16),
            nn.Conv1d(8, 8, 3, padding=2, groups=8),
            nn.Linear(8, 6),
            nn.Linear(6, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.up(x).chunk(2, -1)
        a = self.conv(a.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        h = self.down(f.silu(a) * torch.sigmoid(b))
        return torch.einsum("nsk,nso->nko", h, torch.softmax(self.score(x), 1)).flatten(1)


@dataclass(frozen=True)
class Family:
    """A kind of network.

    Attributes:
        make: makes it.
        shape: of one input, without the batch.
        tokens: number of token ids if the input is these, else 0.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: int = 0

    def data(self, seed: int, count: int = BATCH) -> Array:
        """Return inputs."""
        rng = np.random.default_rng(seed)
        return (
            rng.integers(0, self.tokens, (count, *self.shape))
            if self.tokens
            else rng.normal(size=(count, *self.shape)).astype(np.float32)
        )


FAMILIES: dict[str, Family] = {
    "encoder": Family(Encoder, (12,), 50),
    "decoder": Family(Decoder, (12,), 50),
    "vision transformer": Family(VisionTransformer, (3, 16, 16)),
    "lstm": Family(lambda: Recurrent("LSTM"), (7, 6)),
    "lstm of two ways": Family(lambda: Recurrent("LSTM", True), (7, 6)),
    "gru": Family(lambda: Recurrent("GRU"), (7, 6)),
    "rnn": Family(lambda: Recurrent("RNN"), (7, 6)),
    "keyword spotting": Family(KeywordSpotter, (6, 40)),
    "ecg": Family(Heartbeat, (1, 64)),
    "convnext": Family(ConvMixer, (3, 16, 16)),
    "u-net": Family(Segmenter, (3, 16, 16)),
    "video": Family(Video, (2, 6, 8, 8)),
    "gated sequence": Family(Gated, (7, 6)),
}


# ── ways to a file ────────────────────────────────────────────────────────────────────────────────────


def dynamo(family: Family) -> onnx.ModelProto:
    """Return the float network as torch's newer exporter writes it, with an open batch."""
    x = torch.from_numpy(family.data(1))
    with quietly():
        program = torch.onnx.export(
            family.make().eval(), (x,), dynamo=True, input_names=["x"], output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim("N")},), verbose=False,
        )  # fmt: skip
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


def torchscript(family: Family) -> onnx.ModelProto:
    """Return the float network as torch's older exporter writes it."""
    buffer = io.BytesIO()
    axes = {"x": {0: "N"}, "y": {0: "N"}}
    with quietly():
        torch.onnx.export(
            family.make().eval(), (torch.from_numpy(family.data(1)),), buffer, dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes=axes, opset_version=17,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def _static(export: Callable[[Family], onnx.ModelProto], **options: Any) -> Callable[[Family], onnx.ModelProto]:
    def make(family: Family) -> onnx.ModelProto:
        return quantized(export(family), family.data(2, 8), **options)

    return make


def quantized_dynamically(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return onnxruntime's dynamic quantization."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quietly():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int.onnx"
        onnx.save(proto, source)
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8, reduce_range=True)
        return onnx.load(target)


def _dynamic(export: Callable[[Family], onnx.ModelProto]) -> Callable[[Family], onnx.ModelProto]:
    return lambda family: quantized_dynamically(export(family))


def _blocks(bits: int, form: str) -> Callable[[Family], onnx.ModelProto]:
    def make(family: Family) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantFormat
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        config = DefaultWeightOnlyQuantConfig(16, is_symmetric=False, quant_format=QuantFormat[form], bits=bits)
        with quietly():
            quantizer = MatMulNBitsQuantizer(dynamo(family), algo_config=config)
            quantizer.process()
        proto: onnx.ModelProto = quantizer.model.model
        if form == "QDQ":
            next(o for o in proto.opset_import if o.domain == "").version = 21
        return proto

    return make


def _pt2e(family: Family) -> onnx.ModelProto:
    pt2e = import_module("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = import_module("torchao.testing.pt2e._xnnpack_quantizer")

    x = torch.from_numpy(family.data(2))
    with quietly():
        shapes = ({0: torch.export.Dim("N")},)
        program = torch.export.export(family.make().eval(), (x,), dynamic_shapes=shapes).module()
        quantizer = xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
        prepared = pt2e.prepare_pt2e(program, quantizer)
        prepared(x)
        converted = pt2e.convert_pt2e(prepared)
        exported = torch.export.export(converted, (x,), dynamic_shapes=shapes)
        made = torch.onnx.export(exported, dynamo=True, input_names=["x"], output_names=["y"], verbose=False)
    assert made is not None
    proto: onnx.ModelProto = made.model_proto
    return proto


def _brevitas(form: str) -> Callable[[Family], onnx.ModelProto]:
    def make(family: Family) -> onnx.ModelProto:
        qnn, export, quantize = (import_module(f"brevitas.{name}") for name in ("nn", "export", "graph.quantize"))

        x = torch.from_numpy(family.data(2))
        maps = {
            nn.Conv1d: (qnn.QuantConv1d, {"weight_bit_width": 4}), nn.Conv2d: (qnn.QuantConv2d, {"weight_bit_width": 4}),
            nn.Linear: (qnn.QuantLinear, {"weight_bit_width": 4}), nn.Embedding: (qnn.QuantEmbedding, {"weight_bit_width": 4}),
        }  # fmt: skip
        with quietly(), tempfile.TemporaryDirectory() as folder:
            network = quantize.layerwise_quantize(family.make().eval(), compute_layer_map=maps).eval()
            network(x)
            path = str(Path(folder) / "net.onnx")
            if form == "qcdq":
                export.export_onnx_qcdq(network, args=x, export_path=path, dynamo=False, opset_version=17)
            else:
                export.export_qonnx(network, args=x, export_path=path)
            return onnx.load(path)

    return make


WAYS: dict[str, Callable[[Family], onnx.ModelProto]] = {
    "dynamo": dynamo,
    "torchscript": torchscript,
    "static QDQ": _static(dynamo),
    "static QDQ, script": _static(torchscript, per_channel=True),
    "static QOperator": _static(torchscript, operators=True),
    "dynamic": _dynamic(dynamo),
    "dynamic, script": _dynamic(torchscript),
    "4-bit blocks": _blocks(4, "QOperator"),
    "8-bit blocks": _blocks(8, "QOperator"),
    "4-bit QDQ": _blocks(4, "QDQ"),
    "PT2E": _pt2e,
    "Brevitas QCDQ": _brevitas("qcdq"),
    "Brevitas QONNX": _brevitas("qonnx"),
}


# ── one cell ──────────────────────────────────────────────────────────────────────────────────────────


def reference(proto: onnx.ModelProto, x: Array) -> Array:
    """Return the first output, image by image: of onnxruntime, or of qonnx for its operators."""
    name = proto.graph.input[0].name
    if any("qonnx" in n.domain or "brevitas" in n.domain for n in proto.graph.node):
        from tests.emulator.models import qonnx_values

        return np.asarray(qonnx_values(proto, x)[proto.graph.output[0].name])
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    size = first.dim_value or 1
    return np.concatenate([run(proto, {name: x[i : i + size]})[0] for i in range(0, len(x), size)])


def judge(family: Family, make: Callable[[Family], onnx.ModelProto]) -> tuple[str, str]:
    """Return the cell of a family and a way, and more about it."""
    torch.manual_seed(7)
    try:
        proto = make(family)
        x = family.data(3)
        right = reference(proto, x)
    except Exception as e:
        return "-", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    try:
        network = emulator.load(proto)
        plan = emulator.compile_plan(network)
        found = emulator.infer(plan, {network.inputs[0]: x})[network.outputs[0]]
    except ModelError as e:
        return "refused", " ".join(str(e).split())
    except Exception as e:
        return "ERROR", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    apart = float(np.abs(found - right).max() / max(np.abs(right).max(), 1e-9))
    outcome = "equal" if np.array_equal(found, right) else "close" if apart < 0.02 else "APART"
    share = network.weight_bits / max(1, network.integer_bits)
    note = f"{apart:.1e} apart, {share:.0%} of {network.integer_bits} bits"
    if network.weight_bits:
        placement = emulator.place(network, parse_spec("uniform:ber=0.05"))
        deployment = emulator.deploy(plan, placement)
        faulty = emulator.outputs_under_faults(plan, {network.inputs[0]: x}, deployment)[network.outputs[0]]
        if np.array_equal(faulty, found):
            return "APART", f"{note}; errors change nothing"
    return f"{outcome} {share:.0%}" if network.weight_bits else f"{outcome} float", note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    count: Counter[str] = Counter()
    for way in WAYS:
        for name, family in FAMILIES.items():
            if options.way in (None, way) and options.family in (None, name):
                cell, note = judge(family, WAYS[way])
                count[cell.split()[0]] += 1
                print(f"{way:<20} {name:<20} {cell:<14} {note}", flush=True)
    print(", ".join(f"{number} {outcome}" for outcome, number in count.most_common()))


if __name__ == "__main__":
    main()
