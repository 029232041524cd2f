"""Probability that a class is the answer, given the distribution of independent scores of the last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import AffineRequantize, Requantize, Reshape
from weakcell.emulator.ir.network import Network
from weakcell.emulator.kernels.entry_points import win_probability
from weakcell.emulator.margins import OutputLayer, find_output_layer
from weakcell.emulator.prediction.layer_distribution import RowGroup
from weakcell.emulator.prediction.sum_kernels import cumulative_table
from weakcell.emulator.tasks import ClassTask, Task
from weakcell.memmodels.errors import ModelError

Array = npt.NDArray[Any]

_FINE, _FLOOR = 50, 1e-6
"""Nearly continuous scores are compared on a grid of 1/50 of a standard deviation, so ties do not matter; and the smallest standard
deviation in steps of the grid."""


@dataclass(frozen=True, eq=False)
class ScoredLayer:
    """The output layer, and the grid on which its scores are compared: score = acc · factor + offset, per class.

    Attributes:
        layer: The output layer.
        factor: (C,).
        offset: (C,).
        step: Smallest change of a score by an error (±1 weights); 1 if scores are rounded to codes; 0 if they are nearly
        continuous. low: Lowest code; −inf without rounding.
        high: Highest code; inf without rounding.
    """

    layer: OutputLayer
    factor: Array
    offset: Array
    step: float
    low: float
    high: float

    def compute_probabilities(self, group: RowGroup, changes: Array, targets: Array) -> Array:
        """Compute the probability that each target class is the answer.

        Args:
            group: Images, and the distribution of their sums.
            changes: Sampled changes of the sums, int64 (images, C).
            targets: Classes, int64 (targets, images).

        Returns:
            float64 (targets, images).
        """
        sums, moments = group.sums, group.moments
        mean: Array = sums.sums + changes.astype(np.float64)
        deviation, shape = np.zeros(changes.shape), np.zeros((2, *changes.shape))
        if moments is not None:
            extra = moments.extra_mean(sums)
            mean += (moments.slope - 1.0) * sums.sums + moments.shift + moments.tilt * sums.total[:, None]
            mean += 0.0 if extra is None else extra
            deviation += np.sqrt(moments.variance(sums)) * abs(self.factor)
            shape[0] = (group.shape[:, :1] + group.shape[:, 1:2] * sums.sums) / 6 * np.sign(self.factor)
            shape[1] = group.shape[:, 2:] / 24
        mean = mean * self.factor + self.offset
        if self.low > -np.inf:
            origin, grid = np.zeros_like(mean), self.step
        else:
            origin = sums.sums * self.factor + self.offset
            grid = self.step or max(float(deviation.min()) / _FINE, _FLOOR)
        probabilities = np.empty(targets.shape)
        for row, target in zip(probabilities, targets, strict=True):
            win_probability(
                mean / grid, np.maximum(deviation / grid, _FLOOR), shape, origin / grid, self.low, self.high,
                np.ascontiguousarray(target), cumulative_table(), row,
            )  # fmt: skip
        return probabilities


def find_scored_layer(network: Network, task: Task) -> ScoredLayer | None:
    """Return the output layer if the largest of its sums is the answer and the probabilities can be computed; otherwise None."""
    if not (isinstance(task, ClassTask) and task.form == "scores" and task.top == 1 and not task.positions):
        return None
    try:
        head = find_output_layer(network, task.output)
    except ModelError:
        return None
    factor, offset, low, high = head.scale * head.unit, head.offset * head.unit, -np.inf, np.inf
    step = (2.0 if head.tensor.encoding.kind == "sign" else 1.0) * abs(float(factor[0])) if np.ptp(factor) == 0 else 0.0
    next_layer = _find_next(network, head.accumulator)
    if isinstance(next_layer, Requantize | AffineRequantize):
        grid = next_layer.out_scale if isinstance(next_layer, AffineRequantize) else 1.0
        factor, offset, step = factor / grid, offset / grid + next_layer.zero_point, 1.0
        low, high = float(next_layer.low), float(next_layer.high)
    return ScoredLayer(head, factor, offset, step, low, high)


def _find_next(network: Network, name: str) -> Layer | None:
    """Return the first layer after a value that is not a Reshape."""
    for layer in network.layers:
        if layer.inputs[0] == name:
            return _find_next(network, layer.output) if isinstance(layer, Reshape) else layer
    return None
