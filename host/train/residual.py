"""ResNet18 (He et al., CVPR 2016) and MobileNetV2 (Sandler et al., CVPR 2018), binarized or quantized.

Every convolution reads ±1 (bits = 1) or codes. Where branches are added, a BNN adds the output of a batch norm to ±1 values and
takes the sign of the sum. A QNN quantizes each branch to signed codes, adds them, and quantizes the sum. The stem keeps the size of
images of up to 64 × 64 pixels. The averages over the image pass a batch norm and an activation, so
the last layer reads ±1 or codes.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from weakcell.host.train.layers import Levels, Sign, StoredConv2d, StoredLinear, activation

Shape = tuple[int, int, int]


class Residual(nn.Module):
    """out = act(branch(x) + shortcut(x))."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.act = branch, shortcut, act

    def forward(self, x: Tensor) -> Tensor:
        """Return act(branch(x) + shortcut(x))."""
        result: Tensor = self.act(self.branch(x) + self.shortcut(x))
        return result


def resnet18(shape: Shape, classes: int, bits: int, width: float = 1.0) -> nn.Sequential:
    """Four stages of two blocks of two 3 × 3 convolutions, 64 to 512 channels, then the average and FC."""
    first = round(64 * width)
    layers: list[tuple[str, nn.Module]] = [*_stem(shape, first, bits)]
    inputs = first
    for stage in range(4):
        for block in range(2):
            outputs, stride = round(64 * width) << stage, 2 if stage and not block else 1
            layers.append((f"stage{stage + 1}_{block + 1}", _basic(inputs, outputs, stride, bits)))
            inputs = outputs
    return nn.Sequential(OrderedDict([*layers, *_head(inputs, classes, bits)]))


def mobilenetv2(shape: Shape, classes: int, bits: int, width: float = 1.0) -> nn.Sequential:
    """Seventeen inverted residuals: 1 × 1 to six times the channels, 3 × 3 per channel, 1 × 1 down; then 1280 channels and FC."""
    inputs = round(32 * width)
    layers: list[tuple[str, nn.Module]] = [*_stem(shape, inputs, bits)]
    small = max(shape[1:]) <= 64
    for stage, (factor, channels, blocks, stride) in enumerate(
        ((1, 16, 1, 1), (6, 24, 2, 1 if small else 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    ):
        for block in range(blocks):
            outputs = round(channels * width)
            layers.append((f"stage{stage + 1}_{block + 1}", _inverted(inputs, outputs, factor, 1 if block else stride, bits)))
            inputs = outputs
    last = round(1280 * width)
    layers += [("last", _unit(inputs, last, bits, kernel=1))]
    return nn.Sequential(OrderedDict([*layers, *_head(last, classes, bits)]))


def _unit(inputs: int, outputs: int, bits: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    return nn.Sequential(
        OrderedDict(
            conv=StoredConv2d(inputs, outputs, bits, kernel, stride, groups),
            norm=nn.BatchNorm2d(outputs),
            act=activation(bits),
        )
    )


def _branch_end(inputs: int, outputs: int, bits: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution and batch norm at the end of a branch that is added to another."""
    parts: list[tuple[str, nn.Module]] = [
        ("conv", StoredConv2d(inputs, outputs, bits, kernel, stride)),
        ("norm", nn.BatchNorm2d(outputs)),
    ]
    return nn.Sequential(OrderedDict(parts if bits == 1 else [*parts, ("act", Levels(bits, signed=True))]))


def _basic(inputs: int, outputs: int, stride: int, bits: int) -> Residual:
    branch = nn.Sequential(_unit(inputs, outputs, bits, stride=stride), _branch_end(outputs, outputs, bits, 3, 1))
    plain = stride == 1 and inputs == outputs
    return Residual(branch, nn.Identity() if plain else _branch_end(inputs, outputs, bits, 1, stride), activation(bits))


def _inverted(inputs: int, outputs: int, factor: int, stride: int, bits: int) -> nn.Module:
    """Inverted residual. Its narrow ends have no activation except the quantization: ±1, or signed codes."""
    wide = inputs * factor
    parts = [] if factor == 1 else [_unit(inputs, wide, bits, kernel=1)]
    parts += [_unit(wide, wide, bits, stride=stride, groups=wide), _branch_end(wide, outputs, bits, 1, 1)]
    branch = nn.Sequential(*parts)
    end = Sign() if bits == 1 else Levels(bits, signed=True)
    if stride == 1 and inputs == outputs:
        return Residual(branch, nn.Identity(), end)
    return nn.Sequential(branch, end) if bits == 1 else branch


def _stem(shape: Shape, outputs: int, bits: int) -> list[tuple[str, nn.Module]]:
    """First layer: 3 × 3 convolution, or for large images 7 × 7 with stride 2 and max pooling."""
    if max(shape[1:]) <= 64:
        return [("stem", _unit(shape[0], outputs, bits))]
    return [("stem", _unit(shape[0], outputs, bits, kernel=7, stride=2)), ("shrink", nn.MaxPool2d(3, 2, padding=1))]


def _head(inputs: int, classes: int, bits: int) -> list[tuple[str, nn.Module]]:
    return [
        ("average", nn.AdaptiveAvgPool2d(1)),
        ("norm", nn.BatchNorm2d(inputs)),
        ("act", activation(bits)),
        ("flatten", nn.Flatten()),
        ("dense", StoredLinear(inputs, classes, bits, head=True)),
    ]
