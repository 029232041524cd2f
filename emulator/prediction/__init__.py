"""Accuracy under errors, predicted instead of simulated: rates of bits, laws of sums, probabilities of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memmodels.lazy import attributes

if TYPE_CHECKING:
    from emulator.prediction.bit_rates import BitRates
    from emulator.prediction.expected import Prediction, predict

__all__ = ["BitRates", "Prediction", "predict"]

__getattr__ = attributes(__name__, {"bit_rates": ("BitRates",), "expected": ("Prediction", "predict")})
