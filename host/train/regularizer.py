"""Neuron-level regularizer: training keeps the sums of hidden neurons away from their thresholds.

The metric that belongs to it is the mean number of flips that a neuron tolerates (Corollary 1 of Buschjäger et al., DATE 2021).
`weakcell.emulator.margins.summarize` computes it on the exported network, without torch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weakcell.host.train.layers import Sign, list_stored_layers
from weakcell.memmodels.errors import UsageError


class TolerancePenalty:
    """Penalty λ · mean(relu(δ − |h − s|)) over images and neurons, summed over the hidden layers with ±1 inputs.

    h is the sum of a neuron and s = μ − β σ / γ its threshold, with the statistics of the batch. After Buschjäger et al., arXiv
    2002.00909, 2020; the equation is a reconstruction from the abstract. Call the penalty once after each forward pass in training.

    Args:
        network: Network in training. Hooks are added to its batch norms; `remove` removes them.
        weight: λ.
        distance: δ, in units of h.

    Raises:
        UsageError: The network has no such layers.
    """

    def __init__(self, network: nn.Module, weight: float, distance: float) -> None:
        self.weight, self.distance = weight, distance
        self._layer_penalties: list[Tensor] = []
        norms = find_threshold_neurons(network)
        if not norms:
            raise UsageError("The neuron regularizer", "the network has no ±1 neurons behind ±1 inputs", "Give it a BNN (bits = 1)")
        self._hooks = [norm.register_forward_hook(self._observe) for norm in norms]

    def _observe(self, norm: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if norm.training:
            distances = compute_distances(norm, inputs[0].float())
            self._layer_penalties.append(torch.relu(self.distance - distances).mean())

    def __call__(self, network: nn.Module) -> Tensor:
        total = torch.stack(self._layer_penalties).sum() * self.weight
        self._layer_penalties.clear()
        return total

    def remove(self) -> None:
        """Remove the hooks from the network."""
        for hook in self._hooks:
            hook.remove()


def compute_distances(norm: nn.Module, sums: Tensor) -> Tensor:
    """Return |h − s| for the sums [N, C, …] in front of a batch norm and a Sign, with the statistics of this batch."""
    axes = [axis for axis in range(sums.ndim) if axis != 1]
    shape = [1, -1] + [1] * (sums.ndim - 2)
    mean, variance = sums.mean(axes), sums.var(axes, unbiased=False)
    slope = norm.weight / torch.sqrt(variance + norm.eps)
    threshold = mean - norm.bias / torch.where(slope.abs() < 1e-12, torch.full_like(slope, 1e-12), slope)
    return (sums - threshold.reshape(shape)).abs()


def find_threshold_neurons(network: nn.Module) -> list[nn.Module]:
    """Return the batch norms in front of a Sign. The first is left out: its neurons sum pixels, not ±1 values."""
    norms = [
        norm for norm, next_module in pairwise(network.modules()) if isinstance(norm, _BatchNorm) and isinstance(next_module, Sign)
    ]
    return norms[1:] if list_stored_layers(network) else []
