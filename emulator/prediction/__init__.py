"""Prediction of accuracy under errors, without injecting faults: bit error rates, distributions of sums, class probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weakcell.memmodels.lazy import attributes

if TYPE_CHECKING:
    from weakcell.emulator.prediction.bit_rates import BitRates
    from weakcell.emulator.prediction.expected_accuracy import Prediction, predict

__all__ = ["BitRates", "Prediction", "predict"]

__getattr__, __dir__ = attributes(__name__, {"bit_rates": ("BitRates",), "expected_accuracy": ("Prediction", "predict")})
