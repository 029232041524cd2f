"""The probability that a class is the answer, given independent normal scores of the last layer and the grid that compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.layers import AffineRequantize, Layer, Network, Requantize, Reshape
from weakcell.emulator.margins import OutputLayer, find_output_layer
from weakcell.emulator.prediction.layer_distribution import Part
from weakcell.emulator.prediction.sum_kernels import cumulative_table, win_probability
from weakcell.emulator.tasks import ClassTask, Task
from weakcell.memmodels.errors import ModelError

Array = npt.NDArray[Any]

_FINE, _FLOOR = 50, 1e-6
"""Scores as good as continuous are compared on a grid of 1/50 of a standard deviation, so that ties play no part; the least
standard deviation in steps of the grid."""


@dataclass(frozen=True, eq=False)
class ScoredLayer:
    """The output layer and the grid on which its scores are compared: score = acc * factor + offset, per class.

    step: what errors move a score by, at least (±1 weights); 1 where scores are rounded to codes low … high, 0 where they are as
    good as continuous.
    """

    layer: OutputLayer
    factor: Array
    offset: Array
    step: float
    low: float
    high: float

    def probabilities(self, part: Part, jumps: Array, targets: Array) -> Array:
        """(targets, images): the probability of each target class, if sums follow the part's law plus these jumps."""
        clean, law = part.clean, part.law
        mean: Array = clean.sums + jumps.astype(np.float64)
        deviation, shape = np.zeros(jumps.shape), np.zeros((2, *jumps.shape))
        if law is not None:
            extra = law.extra_mean(clean)
            mean += (law.slope - 1.0) * clean.sums + law.shift + law.tilt * clean.total[:, None] + (0.0 if extra is None else extra)
            deviation += np.sqrt(law.variance(clean)) * abs(self.factor)
            shape[0] = (part.shape[:, :1] + part.shape[:, 1:2] * clean.sums) / 6 * np.sign(self.factor)
            shape[1] = part.shape[:, 2:] / 24
        mean = mean * self.factor + self.offset
        if self.low > -np.inf:
            origin, grid = np.zeros_like(mean), self.step
        else:
            origin = clean.sums * self.factor + self.offset
            grid = self.step or max(float(deviation.min()) / _FINE, _FLOOR)
        made = np.empty(targets.shape)
        for row, target in zip(made, targets, strict=True):
            win_probability(
                mean / grid, np.maximum(deviation / grid, _FLOOR), shape, origin / grid, self.low, self.high, target,
                cumulative_table(), row,
            )  # fmt: skip
        return made


def scored_layer(network: Network, task: Task) -> ScoredLayer | None:
    """The layer behind the judged output, if the largest of its sums is the answer and its probabilities can be worked out."""
    if not (isinstance(task, ClassTask) and task.form == "scores" and task.top == 1 and not task.positions):
        return None
    try:
        head = find_output_layer(network, task.output)
    except ModelError:
        return None
    factor, offset, low, high = head.scale * head.unit, head.offset * head.unit, -np.inf, np.inf
    step = (2.0 if head.tensor.encoding.kind == "sign" else 1.0) * abs(float(factor[0])) if np.ptp(factor) == 0 else 0.0
    follower = _after(network, head.accumulator)
    if isinstance(follower, Requantize | AffineRequantize):
        grid = follower.out_scale if isinstance(follower, AffineRequantize) else 1.0
        factor, offset, step = factor / grid, offset / grid + follower.zero_point, 1.0
        low, high = float(follower.low), float(follower.high)
    return ScoredLayer(head, factor, offset, step, low, high)


def _after(network: Network, name: str) -> Layer | None:
    """The first layer behind a value that does more than reshape it."""
    for layer in network.layers:
        if layer.inputs[0] == name:
            return _after(network, layer.output) if isinstance(layer, Reshape) else layer
    return None
