"""Layers whose weights lie in a memory as codes of 1, 2, 4 or 8 bits, over float latent ones; straight-through gradients.

A latent weight lives in [−1, 1]. One bit stores its sign, which means ±1; k bits store two's complement codes in steps of 2^(1−k),
which mean −1 … 1 − 2^(1−k). Activations are ±1 beside 1-bit weights, else unsigned codes of as many bits as the weights have.
All steps are powers of two, so that float32 sums of products are exact and an exported network computes the same numbers.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (1, 2, 4, 8)
ReadBack = Callable[[Tensor, Tensor], Tensor]
"""(latent weights, what they are stored as) → what a memory gives back, with its gradient; `flips` makes them."""


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, y: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward((x >= low) & (x <= high))
        return y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


class _AsStored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, latent: Tensor, stored: Tensor) -> Tensor:
        return stored

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.float(), None


def straight_through(x: Tensor, y: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """`y` forward; backward its gradient reaches `x` where low ≤ x ≤ high (Hubara et al., NeurIPS 2016)."""
    result: Tensor = _Within.apply(x, y, low, high)
    return result


def as_stored(latent: Tensor, stored: Tensor) -> Tensor:
    """`stored` forward; backward its gradient reaches every latent weight, all of which lie in [−1, 1]."""
    result: Tensor = _AsStored.apply(latent, stored)
    return result


def grid(latent: Tensor, bits: int) -> Tensor:
    """The values that latent weights are stored as: ±1 by their sign bit, or the nearest of the 2^bits codes."""
    if bits == 1:
        return torch.copysign(torch.ones((), dtype=latent.dtype, device=latent.device), latent)
    steps = 1 << (bits - 1)
    return (latent * steps).round_().clamp_(-steps, steps - 1).mul_(1 / steps)


class StoredLinear(nn.Linear):
    """x [N, I] → [N, O] by stored weights [O, I], no bias. head: always summed in float32, as losses count units."""

    def __init__(self, inputs: int, outputs: int, bits: int = 1, head: bool = False) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.bits, self.head = bits, head
        self.read_back: ReadBack | None = None
        _spread(self.weight, bits)

    def forward(self, x: Tensor) -> Tensor:
        if self.head and torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return functional.linear(x.float(), stored_weight(self).float())
        return functional.linear(x, stored_weight(self))

    def deployed(self) -> nn.Linear:
        """The same layer with the values of its stored weights as plain floats."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False)
        layer.weight.data = grid(self.weight.detach(), self.bits)
        return layer


class StoredConv2d(nn.Conv2d):
    """x [N, I, H, W] → [N, O, H', W'] by stored kernels [O, I/groups, K, K], no bias, zeros around the border (K odd)."""

    def __init__(self, inputs: int, outputs: int, bits: int = 1, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bits = bits
        self.read_back: ReadBack | None = None
        _spread(self.weight, bits)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, stored_weight(self), None, self.stride, self.padding, 1, self.groups)

    def deployed(self) -> nn.Conv2d:
        """The same layer with the values of its stored kernels as plain floats."""
        size, padding = self.kernel_size, self.padding
        layer = nn.Conv2d(self.in_channels, self.out_channels, size, self.stride, padding, groups=self.groups, bias=False)
        layer.weight.data = grid(self.weight.detach(), self.bits)
        return layer


StoredLayer = StoredLinear | StoredConv2d


def stored_weight(layer: StoredLayer) -> Tensor:
    """A layer's weights as the multiplication sees them; in training, as a memory gives them back if there is one."""
    latent, kind = layer.weight, layer.weight.device.type
    narrow = torch.is_autocast_enabled(kind)
    held = grid((latent.to(torch.get_autocast_dtype(kind)) if narrow and layer.bits == 1 else latent).detach(), layer.bits)
    if layer.training and layer.read_back is not None:
        return layer.read_back(latent, held)
    return as_stored(latent, held)


def stored_layers(network: nn.Module) -> list[tuple[str, StoredLayer]]:
    """The layers with weights in a memory, by name, in order."""
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, StoredLayer)]


def clamp_latent(network: nn.Module) -> None:
    """Hold every latent weight in [−1, 1], so that none drifts where it could not come back."""
    with torch.no_grad():
        for _, layer in stored_layers(network):
            layer.weight.clamp_(-1, 1)


class Sign(nn.Module):
    """The activation beside 1-bit weights, exactly ONNX's Sign: −1, +1, and 0 for an input of exactly 0."""

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x, torch.sign(x)) if self.training else torch.sign(x)


class Levels(nn.Module):
    """The activation beside k-bit weights: unsigned codes 0 … 2^k − 1 in steps of 2^(2−k), which reach just below 4.

    After a batch norm, values beyond 4 are rare. signed: codes −2^(k−1) … 2^(k−1) − 1 in steps twice as wide, for residual
    branches. Rounds half to even, as ONNX's QuantizeLinear does.
    """

    def __init__(self, bits: int, signed: bool = False) -> None:
        super().__init__()
        self.bits, self.signed = bits, signed
        self.step = 2.0 ** (2 - bits) * (2 if signed else 1)

    @property
    def codes(self) -> tuple[int, int]:
        """The lowest and the highest code."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.codes
        levels = (x / self.step).round().clamp(low, high) * self.step
        return straight_through(x, levels, low * self.step, high * self.step) if self.training else levels


def activation(bits: int) -> nn.Module:
    """What follows a batch norm in a network of that width."""
    return Sign() if bits == 1 else Levels(bits)


def _spread(weight: nn.Parameter, bits: int) -> None:
    """Start multi-bit latent weights over half their range: torch's own start would round to code 0."""
    if bits > 1:
        nn.init.uniform_(weight, -0.5, 0.5)
