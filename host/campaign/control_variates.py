"""What is known of a trial beforehand: how many of a tensor's bits should have flipped.

The law of the memory, the one that predictions are made of, says exactly how many flips a tensor has on average over all dies and
draws. Dies that have more of them than that tend to be worse, so the number of flips serves as a covariate of the accuracy. One
tensor is taken: the weights of fewest bits. Where one weight serves many outputs, as in a first convolution, there are few weights,
their flips vary most from die to die, and each does most harm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weakcell.emulator.faults.deployment import ReadPolicy, Sampling
from weakcell.emulator.ir.layers import StoredTensor
from weakcell.emulator.ir.values import encode_values
from weakcell.emulator.prediction.bit_rates import BitRates, bit_rates
from weakcell.host.campaign.campaign import Cell
from weakcell.memmodels.errors import UsageError


@dataclass(frozen=True)
class Control:
    """A tensor, and the flips that a trial finds in it on average over all trials there could be."""

    tensor: str
    expected: float


def control_of(cell: Cell) -> Control | None:
    """The covariate of a cell; None without a law of single cells, on a pinned die, or where weights are read more than once."""
    study, network = cell.resolved.study, cell.resolved.network
    if study.read_every is not ReadPolicy.LOAD or study.die is not None or study.sampling is not Sampling.BITS:
        return None
    try:
        rates = bit_rates(network, cell.point.placement)
    except UsageError:
        return None
    weights = [network.tensors[name] for name in rates if name in network.tensors and network.tensors[name].role == "weight"]
    if not weights:
        return None
    tensor = min(weights, key=lambda one: one.elements * one.encoding.bits)
    return Control(tensor.name, _expected(tensor, rates[tensor.name]))


def _expected(tensor: StoredTensor, rates: BitRates) -> float:
    codes = encode_values(tensor.values, tensor.encoding)
    planes = np.arange(tensor.encoding.bits, dtype=np.uint64)
    ones = ((codes[:, None] >> planes) & np.uint64(1)).sum(axis=0, dtype=np.int64)
    return float((rates.p10 * ones + rates.p01 * (codes.size - ones)).sum())
