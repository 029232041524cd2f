"""Small networks with the graphs of well-known public ones: classifiers of images, and detectors of the YOLO series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """Return convolution, batch norm with statistics of its own, and activation."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    nn.init.normal_(norm.running_mean, 0, 0.2)
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), norm]
    return nn.Sequential(*layers, *([] if act is None else [act]))


class Residual(nn.Module):
    """x + body(x), and an activation behind it if there is one."""

    def __init__(self, body: nn.Module, way: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.way, self.act = body, way or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.way(x) + self.body(x))


class Branches(nn.Module):
    """Several ways through the same input, joined along the channels."""

    def __init__(self, *ways: nn.Module) -> None:
        super().__init__()
        self.ways = nn.ModuleList(ways)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([way(x) for way in self.ways], 1)


class Squeeze(nn.Module):
    """Squeeze and excitation: channels weighted by what all pixels say."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(f.relu(self.down(f.adaptive_avg_pool2d(x, 1)))))


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, and groups are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            conv(half, half, 1, act=nn.ReLU()), conv(half, half, groups=half), conv(half, half, 1, act=nn.ReLU())
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.body(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def inverted(inputs: int, outputs: int, act: nn.Module, gate: nn.Module | None = None) -> nn.Module:
    """Return an inverted residual of the MobileNets."""
    wide = 2 * inputs
    middle = [] if gate is None else [Squeeze(wide, gate)]
    body = nn.Sequential(conv(inputs, wide, 1, act=act), conv(wide, wide, groups=wide, act=act), *middle, conv(wide, outputs, 1))
    return Residual(body) if inputs == outputs else body


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 25, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.Sigmoid(), nn.Linear(32, 1), nn.Sigmoid())


def vgg() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, act=nn.ReLU()), conv(8, 8, act=nn.ReLU()), nn.MaxPool2d(2), conv(8, 16, act=nn.ReLU()), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 36, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10),
    )  # fmt: skip


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2), nn.Conv2d(16, 16, 5, padding=2, groups=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 10),
    )  # fmt: skip


def resnet() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        body = nn.Sequential(conv(inputs, outputs, 3, stride, act=nn.ReLU()), conv(outputs, outputs))
        return Residual(body, None if stride == 1 else conv(inputs, outputs, 1, stride), nn.ReLU())

    stem = conv(3, 16, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(*stem, block(16, 16, 1), block(16, 24, 2), *head(24))


def squeezenet() -> nn.Module:
    def fire(inputs: int, squeeze: int, outputs: int) -> nn.Module:
        ways = [nn.Sequential(nn.Conv2d(squeeze, outputs, k, padding=k // 2), nn.ReLU()) for k in (1, 3)]
        narrow = nn.Conv2d(inputs, squeeze, 1)
        nn.init.uniform_(narrow.bias, 0.3, 0.7)  # else ReLU may cut all of its few channels off
        return nn.Sequential(narrow, nn.ReLU(), Branches(*ways))

    body = fire(16, 4, 8), nn.MaxPool2d(3, 2, ceil_mode=True), fire(16, 4, 8), nn.Dropout()
    last = nn.Conv2d(16, 10, 1)
    nn.init.constant_(last.bias, 1)  # else ReLU cuts all scores off
    end = last, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), *body, *end)


def shufflenet() -> nn.Module:
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.ReLU()), Shuffle(16), Shuffle(16), conv(16, 24, 1, act=nn.ReLU()), *head(24))


def densenet() -> nn.Module:
    def dense(inputs: int) -> nn.Module:
        grow = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 8, 3, padding=1, bias=False))
        return Branches(nn.Identity(), grow)

    between = nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1, bias=False), nn.AvgPool2d(2)
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.ReLU()), dense(16), dense(24), *between, dense(16), nn.ReLU(), *head(24))


def googlenet() -> nn.Module:
    ways = (
        conv(16, 8, 1, act=nn.ReLU()), nn.Sequential(conv(16, 4, 1, act=nn.ReLU()), conv(4, 8, act=nn.ReLU())),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(16, 8, 1, act=nn.ReLU())),
    )  # fmt: skip
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.ReLU()), nn.LocalResponseNorm(5), Branches(*ways), *head(24))


def mobilenet_v2() -> nn.Module:
    act = nn.ReLU6()
    return nn.Sequential(conv(3, 16, 3, 2, act=act), inverted(16, 16, act), inverted(16, 24, act), *head(24))


def mobilenet_v3() -> nn.Module:
    act, gate = nn.Hardswish(), nn.Hardsigmoid()
    return nn.Sequential(conv(3, 16, 3, 2, act=act), inverted(16, 16, act, gate), inverted(16, 24, act), *head(24))


def efficientnet() -> nn.Module:
    act, gate = nn.SiLU(), nn.Sigmoid()
    return nn.Sequential(conv(3, 16, 3, 2, act=act), inverted(16, 16, act, gate), inverted(16, 24, act, gate), *head(24))


class FaceEmbedding(nn.Module):
    """ArcFace: PReLU, a dense layer with a batch norm, an embedding of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2, act=nn.PReLU(16))
        self.body = Residual(nn.Sequential(nn.BatchNorm2d(16), conv(16, 16, act=nn.PReLU(16)), conv(16, 16)))
        self.last, self.norm = nn.Linear(16 * 144, 16), nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        return f.normalize(self.norm(self.last(self.body(self.stem(x)).flatten(1))))


def super_resolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 9, 3, padding=1), nn.PixelShuffle(3))


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Linear(40, 16), nn.Tanh(), nn.Linear(16, 4), nn.LeakyReLU(), nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 40)
    )


# ── YOLO ──────────────────────────────────────────────────────────────────────────────────────────────


class CrossStage(nn.Module):
    """C3, C2f and ELAN: parts of the channels go through blocks of different depth, and all are joined."""

    def __init__(self, inputs: int, outputs: int, act: nn.Module, split: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.split = split
        self.first = conv(inputs, outputs if split else half, 1, act=act)
        self.other = nn.Identity() if split else conv(inputs, half, 1, act=act)
        self.block = Residual(nn.Sequential(conv(half, half, act=act), conv(half, half, act=act)))
        self.last = conv(3 * half if split else outputs, outputs, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        if not self.split:
            return self.last(torch.cat([self.block(self.first(x)), self.other(x)], 1))
        parts = list(self.first(x).chunk(2, 1))
        return self.last(torch.cat([*parts, self.block(parts[-1])], 1))


class PoolPyramid(nn.Module):
    """SPPF: max pools behind each other, joined."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.pool = conv(channels, 8, 1, act=act), conv(32, channels, 1, act=act), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class PixelAttention(nn.Module):
    """C2PSA of YOLO11: attention over the pixels, with a depthwise convolution of the values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv, self.place, self.last = (
            conv(channels, 2 * channels, 1),
            conv(channels, channels, groups=channels),
            conv(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).view(n, 2, c, h * w).split([c // 4, c // 4, c // 2], 2)
        scores = ((q.transpose(-2, -1) @ k) * (c // 4) ** -0.5).softmax(-1)
        y = (v @ scores.transpose(-2, -1)).view(n, c, h, w) + self.place(v.reshape(n, c, h, w))
        return x + self.last(y)


class Yolo(nn.Module):
    """A detector at two scales: backbone, a neck with nearest upsampling, heads.

    Attributes:
        form: "anchors" (YOLOv5: grids and anchors), "distribution" (YOLOv8: distances as a softmax over 4 bins), or "best"
            (YOLOv10: the best boxes by TopK).
        task: "boxes", "masks" (with prototypes by a transposed convolution), "points" or "turned".
    """

    CLASSES, BINS, EXTRA = 4, 4, {"boxes": 0, "masks": 6, "points": 9, "turned": 1}

    def __init__(
        self, form: str = "distribution", task: str = "boxes", attention: bool = False, act: nn.Module | None = None
    ) -> None:
        super().__init__()
        act = act or nn.SiLU()
        self.form, self.task = form, task
        split = form != "anchors"
        self.stem = nn.Sequential(conv(3, 8, 3, 2, act=act), conv(8, 16, 3, 2, act=act), CrossStage(16, 16, act, split))
        self.deep = nn.Sequential(conv(16, 24, 3, 2, act=act), PoolPyramid(24, act), *([PixelAttention(24)] if attention else []))
        self.up, self.neck = nn.Upsample(scale_factor=2, mode="nearest"), CrossStage(40, 16, act, split)
        extra = self.EXTRA[task]
        each = 3 * (5 + self.CLASSES + extra) if form == "anchors" else 4 * self.BINS + self.CLASSES + extra
        self.heads = nn.ModuleList([nn.Sequential(conv(c, c, act=act), nn.Conv2d(c, each, 1)) for c in (16, 24)])
        for part in self.heads:
            nn.init.normal_(part[-1].weight, 0, 1)  # scores that differ between images
        if task == "masks":
            up = nn.ConvTranspose2d(16, 8, 2, 2, bias=True)
            self.prototypes = nn.Sequential(conv(16, 16, act=act), up, conv(8, extra, act=act))

    def forward(self, x: Tensor) -> Any:
        fine = self.stem(x)
        deep = self.deep(fine)
        fine = self.neck(torch.cat([self.up(deep), fine], 1))
        maps = [part(y) for part, y in zip(self.heads, (fine, deep), strict=True)]
        boxes = self._by_anchors(maps) if self.form == "anchors" else self._by_distances(maps)
        if self.form == "best":
            boxes = self._best(boxes)
        return (boxes, self.prototypes(fine)) if self.task == "masks" else boxes

    @staticmethod
    def _grid(y: Tensor) -> Tensor:
        h, w = y.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(h, dtype=torch.float32), torch.arange(w, dtype=torch.float32), indexing="ij")
        return torch.stack((columns, rows), -1)

    def _by_anchors(self, maps: Sequence[Tensor]) -> Tensor:
        found = []
        for y, stride in zip(maps, (4, 8), strict=True):
            n, _, h, w = y.shape
            p = y.view(n, 3, -1, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            xy = (p[..., :2] * 2 + self._grid(y) - 0.5) * stride
            wh = (p[..., 2:4] * 2) ** 2 * torch.tensor([[4.0, 6], [8, 5], [9, 12]]).view(1, 3, 1, 1, 2)
            found.append(torch.cat((xy, wh, p[..., 4:]), -1).view(n, -1, p.shape[-1]))
        return torch.cat(found, 1)

    def _by_distances(self, maps: Sequence[Tensor]) -> Tensor:
        n = maps[0].shape[0]
        joined = torch.cat([y.view(n, y.shape[1], -1) for y in maps], 2)
        box, scores, *more = joined.split([k for k in (4 * self.BINS, self.CLASSES, self.EXTRA[self.task]) if k], 1)
        centres = torch.cat([self._grid(y).view(-1, 2) + 0.5 for y in maps]).T
        strides = torch.cat([torch.full((y.shape[2] * y.shape[3],), s) for y, s in zip(maps, (4.0, 8.0), strict=True)])
        bins = torch.arange(self.BINS, dtype=torch.float32)
        away = (box.view(n, 4, self.BINS, -1).softmax(2) * bins.view(1, 1, -1, 1)).sum(2)
        low, high = centres - away[:, :2], centres + away[:, 2:]
        shape = torch.cat(((low + high) / 2, high - low), 1) * strides
        if self.task == "points":
            more = [(more[0].view(n, 3, 3, -1) * torch.tensor([2.0, 2.0, 1.0]).view(1, 1, 3, 1)).view(n, 9, -1)]
        if self.task == "turned":
            more = [(more[0].sigmoid() - 0.25) * torch.pi]
        return torch.cat((shape, scores.sigmoid(), *more), 1)

    def _best(self, found: Tensor) -> Tensor:
        rows = found.transpose(1, 2)
        boxes, scores = rows[..., :4], rows[..., 4:]
        best = scores.amax(-1).topk(12)[1].unsqueeze(-1)
        boxes, scores = boxes.gather(1, best.expand(-1, -1, 4)), scores.gather(1, best.expand(-1, -1, self.CLASSES))
        values, index = scores.flatten(1).topk(8)
        boxes = boxes.gather(1, (index // self.CLASSES).unsqueeze(-1).expand(-1, -1, 4))
        return torch.cat((boxes, values.unsqueeze(-1), (index % self.CLASSES).unsqueeze(-1).float()), -1)


class YoloClassifier(nn.Module):
    """YOLOv8-cls: the backbone and classes as probabilities."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.SiLU()
        self.body = nn.Sequential(conv(3, 8, 3, 2, act=act), conv(8, 16, 3, 2, act=act), CrossStage(16, 16, act, True), *head(16))
        nn.init.normal_(self.body[-1].weight, 0, 3)  # scores that differ between images

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).softmax(1)


class Focus(nn.Module):
    """YOLOX: pixels to channels by slices, and a detector of one scale with one head for each kind of output."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.SiLU()
        self.body = nn.Sequential(conv(12, 16, act=act), conv(16, 16, 3, 2, act=act), CrossStage(16, 16, act, False))
        self.parts = nn.ModuleList([nn.Sequential(conv(16, 16, act=act), nn.Conv2d(16, c, 1)) for c in (4, 1, 4)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
        y = self.body(x)
        box, found, classes = (part(y) for part in self.parts)
        return torch.cat([box, found.sigmoid(), classes.sigmoid()], 1).flatten(2).permute(0, 2, 1)


class TinyYolo(nn.Module):
    """YOLOv3-tiny: leaky activations, max pools, raw maps as outputs."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.LeakyReLU(0.1)
        self.first = nn.Sequential(conv(3, 8, act=act), nn.MaxPool2d(2), conv(8, 16, act=act), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.MaxPool2d(2), conv(16, 24, act=act))
        self.heads = nn.ModuleList([nn.Conv2d(40, 27, 1), nn.Conv2d(24, 27, 1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.first(x)
        deep = self.second(fine)
        return self.heads[0](torch.cat([f.interpolate(deep, scale_factor=2), fine], 1)), self.heads[1](deep)
