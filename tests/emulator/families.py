"""Families of networks that people bring, small: for tests of exporters and of the importer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as f

Array = np.ndarray
BATCH = 3
"""Some exporters fix it in the file."""


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
