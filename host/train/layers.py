"""Layers with quantized weights: codes of 1, 2, 4 or 8 bits are stored, float latent weights are trained.

A latent weight lies in [−1, 1]. One bit stores its sign, ±1. k bits store a two's complement code with step 2^(1−k), so the values
are −1 … 1 − 2^(1−k). After `use_min_max_codes`, k bits store MCEL's codes instead: the range of the tensor is divided evenly, and
the integers −2^(k−1) … 2^(k−1) − 1 are used as they are. Activations are ±1 in networks of 1-bit weights, otherwise unsigned codes
of as many bits as the weights. All steps are powers of two: float32 sums of products are exact, and the exported network computes
the same numbers.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (1, 2, 4, 8)
ReadBack = Callable[[Tensor, Tensor], Tensor]
"""(latent weights, stored values) → the values that a memory returns, with their gradient. `flips` makes them."""


@cache
def _find_outer_bounds(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """Return the numbers of a type next to low … high, outside: low ≤ x ≤ high if and only if x is strictly between them."""
    ends = torch.tensor([low, high], dtype=dtype)
    outer = torch.nextafter(ends, torch.tensor([-torch.inf, torch.inf], dtype=dtype))
    return float(outer[0]), float(outer[1])


class _ClippedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, y: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = _find_outer_bounds(low, high, x.dtype)
        return y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        # One pass. Three comparisons and products of tensors take four.
        return torch.ops.aten.hardtanh_backward(gradient, x, *ctx.bounds), None, None, None


class _IdentityGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, latent: Tensor, stored: Tensor) -> Tensor:
        return stored

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.float(), None


def straight_through(x: Tensor, y: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return `y`; its gradient goes to `x` where low ≤ x ≤ high (straight-through; Hubara et al., NeurIPS 2016)."""
    result: Tensor = _ClippedGradient.apply(x, y, low, high)
    return result


def identity_gradient(latent: Tensor, stored: Tensor) -> Tensor:
    """Return `stored`; its gradient goes to every latent weight. All of them lie in [−1, 1]."""
    result: Tensor = _IdentityGradient.apply(latent, stored)
    return result


def quantize_latent(latent: Tensor, bits: int) -> Tensor:
    """Quantize latent weights: to ±1 by their sign bit, or to the nearest of the 2^bits codes."""
    if bits == 1:
        return torch.copysign(torch.ones((), dtype=latent.dtype, device=latent.device), latent)
    steps = 1 << (bits - 1)
    return (latent * steps).round_().clamp_(-steps, steps - 1).mul_(1 / steps)


def quantize_min_max(latent: Tensor, bits: int) -> Tensor:
    """Quantize latent weights to integers by the range of the tensor, as MCEL's author does.

    round((w − min) · (2^bits − 1) / (max − min)) − 2^(bits−1). The integers are the values: no step is multiplied back, because the
    batch norm that follows would divide by it. All weights of a tensor without a range get the lowest code.
    """
    low, high = latent.aminmax()
    codes = (latent - low).mul_((2**bits - 1) / (high - low).clamp_min(1e-30))
    return codes.round_().sub_(1 << (bits - 1))


class StoredLinear(nn.Linear):
    """Dense layer [N, I] → [N, O] with stored weights [O, I], and no bias before `use_min_max_codes`.

    Args:
        inputs: I.
        outputs: O.
        bits: Bits of a stored weight.
        head: Whether this is the last layer. It always sums in float32, because margins count units of its sums.
    """

    def __init__(self, inputs: int, outputs: int, bits: int = 1, head: bool = False) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.bits, self.head, self.min_max = bits, head, False
        self.read_back: ReadBack | None = None
        _initialize(self.weight, bits)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply with the stored weights, read from the memory in training if there is one."""
        if self.head and torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return functional.linear(x.float(), stored_weight(self).float(), stored_bias(self))
        return functional.linear(x, stored_weight(self), stored_bias(self))

    def deployed(self) -> nn.Linear:
        """Return the layer with the stored values as plain float weights."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        _deploy(self, layer)
        return layer


class StoredConv2d(nn.Conv2d):
    """Convolution [N, I, H, W] → [N, O, H', W'] with stored weights [O, I/groups, K, K] and zero padding of K // 2.

    It has no bias before `use_min_max_codes`.
    """

    def __init__(self, inputs: int, outputs: int, bits: int = 1, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bits, self.min_max = bits, False
        self.read_back: ReadBack | None = None
        _initialize(self.weight, bits)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the stored weights, read from the memory in training if there is one."""
        return functional.conv2d(x, stored_weight(self), stored_bias(self), self.stride, self.padding, 1, self.groups)

    def deployed(self) -> nn.Conv2d:
        """Return the layer with the stored values as plain float weights."""
        size, padding = self.kernel_size, self.padding
        biased = self.bias is not None
        layer = nn.Conv2d(self.in_channels, self.out_channels, size, self.stride, padding, groups=self.groups, bias=biased)
        _deploy(self, layer)
        return layer


StoredLayer = StoredLinear | StoredConv2d


def stored_weight(layer: StoredLayer) -> Tensor:
    """Return the weights that a layer multiplies with: the stored values, or in training the values that a memory returns."""
    latent, device = layer.weight, layer.weight.device.type
    # ±1 is exact in a narrow type, so 1-bit weights are quantized in it.
    narrow = torch.is_autocast_enabled(device) and layer.bits == 1
    stored = quantize_stored(layer, (latent.to(torch.get_autocast_dtype(device)) if narrow else latent).detach())
    if layer.training and layer.read_back is not None:
        return layer.read_back(latent, stored)
    return identity_gradient(latent, stored)


def stored_bias(layer: StoredLayer) -> Tensor | None:
    """Return the stored biases that a layer adds, with the gradient of the latent ones; None for a layer without."""
    if layer.bias is None:
        return None
    return identity_gradient(layer.bias, quantize_min_max(layer.bias.detach(), layer.bits))


def quantize_stored(layer: StoredLayer, latent: Tensor) -> Tensor:
    """Quantize latent weights by the codes of a layer."""
    return quantize_min_max(latent, layer.bits) if layer.min_max else quantize_latent(latent, layer.bits)


def stored_step(layer: StoredLayer) -> float:
    """Return the step between two stored values of a layer: value = code × step."""
    return 1.0 if layer.bits == 1 or layer.min_max else 2.0 ** (1 - layer.bits)


def use_min_max_codes(network: nn.Module) -> None:
    """Let all stored layers of a network use MCEL's codes (`quantize_min_max`), and give them biases that are stored likewise.

    The latent weights and biases get torch's own initial values: the range is the tensor's own, so their size does not matter.
    """
    for _, layer in list_stored_layers(network):
        layer.min_max = True
        layer.bias = nn.Parameter(torch.empty(layer.weight.shape[0], device=layer.weight.device))
        layer.reset_parameters()


def _deploy(layer: StoredLayer, plain: nn.Linear | nn.Conv2d) -> None:
    """Copy the stored values of a layer into a plain one."""
    plain.weight.data = quantize_stored(layer, layer.weight.detach())
    if layer.bias is not None:
        plain.bias.data = quantize_min_max(layer.bias.detach(), layer.bits)


def list_stored_layers(network: nn.Module) -> list[tuple[str, StoredLayer]]:
    """Return the layers with stored weights, with their names, in order."""
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, StoredLayer)]


def clamp_latent(network: nn.Module) -> None:
    """Clamp every latent weight to [−1, 1], where its code can still change, and the output scale to positive values."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, StoredLayer):
                module.weight.clamp_(-1, 1)
            elif isinstance(module, OutputScale):
                module.scale.clamp_(min=module.least)


class OutputScale(nn.Module):
    """One learnable positive factor of all outputs, behind the last layer. It exists in training only.

    The loss sees outputs of a magnitude that the training chooses, while the last layer sums integers. The factor is positive and
    the same for every class, so it changes no answer and the exported network does without it. The framework of MCEL's author ends
    every network in such a scalar.

    Args:
        start: Value at the start of training.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(start)))
        self.least = float(start) / 100

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs times the scale."""
        return x * self.scale


def remove_output_scale(network: nn.Module) -> float:
    """Replace the output scale of a network by the identity, in place, and return it; 1 for a network without one."""
    factor = 1.0
    for name, module in list(network.named_modules()):
        if isinstance(module, OutputScale):
            factor = float(module.scale.detach())
            network.set_submodule(name, nn.Identity())
    return factor


class Sign(nn.Module):
    """Activation of networks with 1-bit weights, as ONNX's Sign: −1, +1, and 0 for an input of exactly 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sign; its gradient passes where |x| ≤ 1."""
        return straight_through(x, torch.sign(x.detach())) if self.training else torch.sign(x)


class Levels(nn.Module):
    """Activation of networks with k-bit weights: unsigned codes 0 … 2^k − 1 with step 2^(2−k), so values in [0, 4).

    After a batch norm, values above 4 are rare. Ties round to even, as in ONNX's QuantizeLinear.

    Args:
        bits: k.
        signed: Use codes −2^(k−1) … 2^(k−1) − 1 with a step twice as wide, for residual branches.
    """

    def __init__(self, bits: int, signed: bool = False) -> None:
        super().__init__()
        self.bits, self.signed = bits, signed
        self.step = 2.0 ** (2 - bits) * (2 if signed else 1)

    @property
    def codes(self) -> tuple[int, int]:
        """Lowest and highest code."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Round to the nearest code; the gradient passes inside the range of the codes."""
        low, high = self.codes
        # A product with the inverse of a power of two is exact. No pass but the first makes a new tensor.
        levels = (x.detach() * (1 / self.step)).round_().clamp_(low, high).mul_(self.step)
        return straight_through(x, levels, low * self.step, high * self.step) if self.training else levels


def activation(bits: int) -> nn.Module:
    """Return the activation of a network whose weights have so many bits."""
    return Sign() if bits == 1 else Levels(bits)


def _initialize(weight: nn.Parameter, bits: int) -> None:
    """Initialize multi-bit latent weights over half their range; torch's own initial values would round to code 0."""
    if bits > 1:
        nn.init.uniform_(weight, -0.5, 0.5)
