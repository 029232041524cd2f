"""The neuron-level regularizer: hidden neurons are kept away from their thresholds.

The metric itself, mean flips tolerated over images and neurons (Corollary 1 of Buschjäger et al., DATE 2021), needs no torch:
`weakcell.emulator.margins.summarize` computes it on the exported network.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weakcell.host.train.layers import Sign, stored_layers
from weakcell.memmodels.errors import UsageError


class TolerancePenalty:
    """λ · mean(relu(δ − |h − s|)) over images and neurons, summed over the hidden layers whose inputs are ±1.

    h is a neuron's sum and s = μ − β σ / γ its threshold, with the batch norm's statistics of the batch; δ is in units of h. After
    arXiv 2002.00909 (Buschjäger et al., 2020), reconstructed: only its abstract was at hand. UsageError for a network without such
    layers. Call it once after each forward pass in training; `remove` takes its hooks off.
    """

    def __init__(self, network: nn.Module, weight: float, distance: float) -> None:
        self.weight, self.distance = weight, distance
        self._terms: list[Tensor] = []
        norms = neurons_with_thresholds(network)
        if not norms:
            raise UsageError("The neuron regularizer", "the network has no ±1 neurons behind ±1 inputs", "Give it a BNN (bits = 1)")
        self._hooks = [norm.register_forward_hook(self._see) for norm in norms]

    def _see(self, norm: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if norm.training:
            self._terms.append(torch.relu(self.distance - distances(norm, inputs[0].float())).mean())

    def __call__(self, network: nn.Module) -> Tensor:
        total = torch.stack(self._terms).sum() * self.weight
        self._terms.clear()
        return total

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def distances(norm: nn.Module, sums: Tensor) -> Tensor:
    """|h − s| of sums [N, C, …] that `norm` and Sign follow, with the statistics of this batch."""
    axes = [axis for axis in range(sums.ndim) if axis != 1]
    shape = [1, -1] + [1] * (sums.ndim - 2)
    mean, variance = sums.mean(axes), sums.var(axes, unbiased=False)
    slope = norm.weight / torch.sqrt(variance + norm.eps)
    threshold = mean - norm.bias / torch.where(slope.abs() < 1e-12, torch.full_like(slope, 1e-12), slope)
    return (sums - threshold.reshape(shape)).abs()


def neurons_with_thresholds(network: nn.Module) -> list[nn.Module]:
    """The batch norms before a Sign, but for the first, whose neurons sum pixels."""
    modules = list(network.modules())
    norms = [a for a, b in pairwise(modules) if isinstance(a, _BatchNorm) and isinstance(b, Sign)]
    return norms[1:] if stored_layers(network) else []
