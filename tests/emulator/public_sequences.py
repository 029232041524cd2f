"""Small networks with the graphs of well-known public ones that read text, audio and sensors.

Encoders and decoders of text are those of the `transformers` package with few and small layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as f

from tests.emulator.models import Array, model, node

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TOKENS, LENGTH, ROWS = 60, 10, 3


class Named(nn.Module):
    """A network of `transformers` whose inputs come in order; one of its outputs, or the mean of the tokens that the mask shows."""

    def __init__(self, network: nn.Module, names: tuple[str, ...], output: str, mean: bool = False) -> None:
        super().__init__()
        self.network, self.names, self.output, self.mean = network, names, output, mean

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        y = self.network(**given, return_dict=True)[self.output]
        if not self.mean:
            return y
        mask = given["attention_mask"].unsqueeze(-1).float()
        return f.normalize((y * mask).sum(1) / mask.sum(1).clamp(min=1e-9))


@dataclass(frozen=True)
class Sequence:
    """A network that reads sequences.

    Attributes:
        make: makes it.
        data: makes its inputs, by name, from a random generator.
        dynamo: which of torch's exporters writes it.
    """

    make: Callable[[], nn.Module]
    data: Callable[[np.random.Generator], Mapping[str, Array]]
    dynamo: bool = False


def tokens(*more: str, first: int = 4) -> Callable[[np.random.Generator], Mapping[str, Array]]:
    """Return a maker of token ids, with a mask or types of tokens. One sequence is shorter than the others."""

    def make(rng: np.random.Generator) -> Mapping[str, Array]:
        ids = rng.integers(first, TOKENS, (ROWS, LENGTH))
        mask = np.ones_like(ids)
        if "attention_mask" in more:
            mask[1, 6:] = 0
        others = {"attention_mask": mask, "token_type_ids": (np.arange(LENGTH) >= 5).astype(np.int64) * np.ones_like(ids)}
        return {"input_ids": ids, **{name: others[name] for name in more}}

    return make


def signal(*shape: int, name: str = "x") -> Callable[[np.random.Generator], Mapping[str, Array]]:
    """Return a maker of random signals."""
    return lambda rng: {name: rng.normal(size=(ROWS, *shape)).astype(np.float32)}


def _of(kind: str, config: str, names: tuple[str, ...], output: str = "last_hidden_state", **more: Any) -> Callable[[], nn.Module]:
    """Return a maker of a network of `transformers` by the names of its class and configuration."""

    def make() -> nn.Module:
        package = import_module("transformers")
        mean = more.pop("mean", False) if "mean" in more else False
        settings = getattr(package, config)(**more)
        settings._attn_implementation = "eager"
        settings.use_cache = False
        return Named(getattr(package, kind)(settings).eval(), names, output, mean)

    return make


class StreamingBlock(nn.Module):
    """Zipformer and Conformer: attention, a gated depthwise convolution, and caches of both that go in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.depth, self.down = nn.Conv1d(16, 32, 1), nn.Conv1d(16, 16, 5, groups=16), nn.Conv1d(16, 16, 1)
        self.qkv, self.norm, self.last = nn.Linear(16, 48), nn.LayerNorm(16), nn.Linear(16, 20)

    def forward(self, x: Tensor, memory: Tensor, cache: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.cat([memory, x], 1)
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        x = x + f.scaled_dot_product_attention(q[:, :, -x.shape[1] :], k, v).transpose(1, 2).flatten(2)
        g = torch.cat([cache, f.glu(self.up(x.transpose(1, 2)), 1)], 2)
        x = x + self.down(f.silu(self.depth(g))).transpose(1, 2)
        return f.log_softmax(self.last(x), -1), h[:, -6:], g[:, :, -4:]


def streaming_data(rng: np.random.Generator) -> Mapping[str, Array]:
    shapes = {"x": (8, 16), "memory": (6, 16), "cache": (16, 4)}
    return {name: rng.normal(size=(ROWS, *shape)).astype(np.float32) for name, shape in shapes.items()}


class VoiceActivity(nn.Module):
    """Silero VAD: a short Fourier transform as a convolution, an encoder, an LSTM whose state goes in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.fourier, self.encoder = nn.Conv1d(1, 18, 16, 8, bias=False), nn.Conv1d(9, 12, 3, padding=1)
        self.lstm, self.last = nn.LSTM(12, 12), nn.Conv1d(12, 1, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.fourier(f.pad(x.unsqueeze(1), (4, 4), "reflect"))
        y = f.relu(self.encoder((parts[:, :9] ** 2 + parts[:, 9:] ** 2).sqrt()))
        y, (h, c) = self.lstm(y.permute(2, 0, 1), (h.unsqueeze(0), c.unsqueeze(0)))
        return torch.sigmoid(self.last(f.relu(y).permute(1, 2, 0))).mean(2), h[0], c[0]


def voice_data(rng: np.random.Generator) -> Mapping[str, Array]:
    return {name: rng.normal(size=(ROWS, n)).astype(np.float32) for name, n in (("x", 64), ("h", 12), ("c", 12))}


class Enhancer(nn.Module):
    """DTLN and RNNoise: masks of a spectrum by two recurrent layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.last = getattr(nn, kind)(9, 12, num_layers=2, batch_first=True), nn.Linear(12, 9)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.last(self.layer(x)[0]))


class TextReader(nn.Module):
    """CRNN: convolutions, columns as a sequence with time first, an LSTM of two ways, letters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, (8, 1)), nn.ReLU())
        self.lstm, self.last = nn.LSTM(12, 8, bidirectional=True), nn.Linear(16, 14)

    def forward(self, x: Tensor) -> Tensor:
        return f.log_softmax(self.last(self.lstm(self.body(x).squeeze(2).permute(2, 0, 1))[0]), 2)


class SeparableKeywords(nn.Module):
    """DS-CNN on a signal: depthwise and pointwise convolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def separable() -> list[nn.Module]:
            deep = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)
            point = nn.Conv1d(width, width, 1, bias=False)
            return [deep, nn.BatchNorm1d(width), nn.ReLU(), point, nn.BatchNorm1d(width), nn.ReLU()]

        stem = nn.Conv1d(10, width, 9, 2, 4), nn.BatchNorm1d(width), nn.ReLU()
        self.body = nn.Sequential(*stem, *separable(), *separable(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Activity(nn.Module):
    """A classifier of movements: 1-D convolutions and an LSTM on the last layer's features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(16, 16, 3), nn.ReLU())
        self.last = nn.Linear(16 * 18, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x.transpose(1, 2)).flatten(1))


class Assigns(nn.Module):
    """A convolution of a signal whose rows are written one by one (ScatterND), and whose sums are cleaned of NaN (IsNaN)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv1d(6, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(x.shape[0], 8, 20)
        y[:, :, 2:18] = self.conv(x)
        y = torch.where(torch.isnan(y), torch.zeros_like(y), y)
        return self.last(torch.tanh(y).transpose(1, 2))


ENCODERS: dict[str, Sequence] = {
    "sentence encoder (MiniLM)": Sequence(
        _of("BertModel", "BertConfig", ("input_ids", "attention_mask"), mean=True, **SMALL), tokens("attention_mask")
    ),
    "BERT classifier": Sequence(
        _of("BertForSequenceClassification", "BertConfig", ("input_ids", "attention_mask", "token_type_ids"), "logits", **SMALL),
        tokens("attention_mask", "token_type_ids"),
    ),
    "DistilBERT": Sequence(
        _of("DistilBertForSequenceClassification", "DistilBertConfig", ("input_ids", "attention_mask"), "logits",
            vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=32), tokens("attention_mask"),
    ),
    "RoBERTa": Sequence(
        _of("RobertaModel", "RobertaConfig", ("input_ids", "attention_mask"), max_position_embeddings=40, pad_token_id=1, **SMALL),
        tokens("attention_mask"),
    ),
    "DeBERTa v2": Sequence(
        _of("DebertaV2Model", "DebertaV2Config", ("input_ids", "attention_mask"), relative_attention=True, position_buckets=8,
            pos_att_type=["p2c", "c2p"], share_att_key=True, **SMALL), tokens("attention_mask"),
    ),
    "T5 encoder": Sequence(
        _of("T5EncoderModel", "T5Config", ("input_ids", "attention_mask"), vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2,
            num_heads=2), tokens("attention_mask"),
    ),
    "GPT-2": Sequence(
        _of("GPT2LMHeadModel", "GPT2Config", ("input_ids", "attention_mask"), "logits", vocab_size=60, n_embd=16, n_layer=2,
            n_head=2, n_positions=40), tokens("attention_mask"),
    ),
    "CLIP text": Sequence(
        _of("CLIPTextModelWithProjection", "CLIPTextConfig", ("input_ids",), "text_embeds", projection_dim=12,
            eos_token_id=2, **SMALL),
        tokens(),
    ),
    "Whisper encoder": Sequence(
        _of("WhisperModel", "WhisperConfig", (), vocab_size=60, d_model=16, encoder_layers=2, encoder_attention_heads=2,
            encoder_ffn_dim=32, num_mel_bins=8, max_source_positions=12, decoder_layers=1, decoder_attention_heads=2,
            decoder_ffn_dim=32, pad_token_id=0), signal(8, 24, name="input_features"),
    ),
    "wav2vec2": Sequence(
        _of("Wav2Vec2ForCTC", "Wav2Vec2Config", ("input_values",), "logits", conv_dim=[8, 8], conv_kernel=[10, 3],
            conv_stride=[5, 2],
            num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **SMALL),
        signal(200, name="input_values"),
    ),
}  # fmt: skip
"""Networks of `transformers`."""

OTHERS: dict[str, Sequence] = {
    "streaming speech (Zipformer)": Sequence(StreamingBlock, streaming_data, dynamo=True),
    "voice activity (Silero)": Sequence(VoiceActivity, voice_data),
    "speech enhancement (DTLN)": Sequence(lambda: Enhancer("LSTM"), signal(7, 9)),
    "speech enhancement, GRU (RNNoise)": Sequence(lambda: Enhancer("GRU"), signal(7, 9)),
    "text in images (CRNN)": Sequence(TextReader, signal(1, 16, 24)),
    "keyword spotting (DS-CNN)": Sequence(SeparableKeywords, signal(10, 40)),
    "activity from sensors": Sequence(Activity, signal(40, 6)),
    "rows written one by one": Sequence(Assigns, signal(6, 16)),
}
"""Networks of this file."""


def whisper_encoder() -> nn.Module:
    """Return the encoder alone."""
    whole: Any = ENCODERS["Whisper encoder"].make()
    return Named(whole.network.encoder, ("input_features",), "last_hidden_state")


def speech_synthesis() -> onnx.ModelProto:
    """Return the part of VITS that draws noise, in front of a quantized convolution, written node by node."""
    rng = np.random.default_rng(5)
    constants = {"w": rng.integers(-60, 60, (6, 6, 3)).astype(np.int8), "s": np.float32(0.01), "k": np.float32(0.6)}
    nodes = [
        node("RandomNormalLike", "x", "n"), node("Mul", "n k", "m"), node("Add", "x m", "a"), node("DequantizeLinear", "w s", "wd"),
        node("Conv", "a wd", "y", pads=[1, 1]),
    ]  # fmt: skip
    return model(nodes, constants, {"x": ["N", 6, 12]}, {"y": ["N", 6, 12]})


def scan() -> onnx.ModelProto:
    """Return a recurrence as a Scan with weights in int8, written node by node as tf2onnx does."""
    rng = np.random.default_rng(6)
    constants = {
        "w": rng.integers(-60, 60, (6, 8)).astype(np.int8), "r": rng.integers(-60, 60, (8, 8)).astype(np.int8),
        "s": np.float32(0.01), "h0": np.zeros((1, 8), np.float32),
    }  # fmt: skip
    floats = TensorProto.FLOAT
    body = helper.make_graph(
        [node("MatMul", "xt wd", "a"), node("MatMul", "h rd", "b"), node("Add", "a b", "c"), node("Tanh", "c", "d"),
         node("Identity", "d", "e")],
        "step", [helper.make_tensor_value_info("h", floats, [None, 8]), helper.make_tensor_value_info("xt", floats, [None, 6])],
        [helper.make_tensor_value_info("d", floats, [None, 8]), helper.make_tensor_value_info("e", floats, [None, 8])],
    )  # fmt: skip
    nodes = [
        node("DequantizeLinear", "w s", "wd"), node("DequantizeLinear", "r s", "rd"), node("Shape", "x", "sh", start=0, end=1),
        node("ConstantOfShape", "sh", "zeros"), node("Unsqueeze", "zeros one", "z1"), node("Add", "z1 h0", "start"),
        node("Transpose", "x", "xs", perm=[1, 0, 2]),
        helper.make_node("Scan", ["start", "xs"], ["last", "all"], "scan", body=body, num_scan_inputs=1),
        node("Transpose", "all", "y", perm=[1, 0, 2]),
    ]  # fmt: skip
    constants["one"] = np.array([1])
    return model(nodes, constants, {"x": ["N", 7, 6]}, {"y": ["N", 7, 8]})
