"""Layers of binarized networks: ±1 weights over float latent ones, ±1 activations, straight-through gradients."""

# mypy: allow-subclassing-any

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, latent: Tensor, binary: Tensor) -> Tensor:
        ctx.save_for_backward(latent)
        return binary

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (latent,) = ctx.saved_tensors
        return gradient * (latent.abs() <= 1), None


def straight_through(latent: Tensor, binary: Tensor) -> Tensor:
    """`binary` forward; backward its gradient reaches `latent` where |latent| ≤ 1 (Hubara et al., NeurIPS 2016)."""
    return _StraightThrough.apply(latent, binary)


def binarize(weight: Tensor) -> Tensor:
    """+1 where a latent weight is at least 0, else −1: a stored bit has no third value."""
    return torch.where(weight >= 0, 1.0, -1.0)


class Sign(nn.Module):
    """The activation, exactly ONNX's Sign: −1, +1, and 0 for an input of exactly 0."""

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x, torch.sign(x)) if self.training else torch.sign(x)


class BinaryLinear(nn.Linear):
    """x [N, I] → [N, O] by ±1 weights [O, I], no bias; the latent weights live in [−1, 1]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, straight_through(self.weight, binarize(self.weight)))

    def deployed(self) -> nn.Linear:
        """The same layer with its ±1 weights as plain floats."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False)
        layer.weight.data = binarize(self.weight.detach())
        return layer


class BinaryConv2d(nn.Conv2d):
    """x [N, I, H, W] → [N, O, H, W] by ±1 kernels [O, I, K, K], no bias, zeros around the border (K odd)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = straight_through(self.weight, binarize(self.weight))
        return functional.conv2d(x, weight, padding=self.padding)

    def deployed(self) -> nn.Conv2d:
        """The same layer with its ±1 kernels as plain floats."""
        layer = nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, padding=self.padding, bias=False)
        layer.weight.data = binarize(self.weight.detach())
        return layer


def clamp_latent(network: nn.Module) -> None:
    """Hold every latent weight in [−1, 1], so that the straight-through gradient never loses one for good."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, BinaryLinear | BinaryConv2d):
                layer.weight.clamp_(-1, 1)
