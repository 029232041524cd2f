"""Retention without refresh: which share of a DRAM's cells has lost its charge after some time at some temperature.

    z(x) = level + body x - (tail - body) width ln(1 + exp(-(x - knee) / width)),   x = ln of the time in s,   p = Phi(z)

The probit z of the share is a straight line of slope `tail` well before the knee and of slope `body` well after it: a steep tail of
leaky cells, and a broad body. Temperature scales time: cells at T lose their charge exp(E/k (1/T_ref - 1/T)) times as fast as at
T_ref. `tail` and `width` are common to the measured modules of two manufacturers; level, body and knee belong to the module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weakcell.memmodels.technologies.support import phi

TAIL, WIDTH = 0.9524, 0.9216
"""Slope of the tail, and width of the knee, of eight DDR4 modules (`ddr4.py`)."""
BOLTZMANN, KELVIN = 8.617333e-5, 273.15
"""eV/K, and 0 °C in K."""


@dataclass(frozen=True)
class RetentionLaw:
    """The share of cells that lost their charge at the reference temperature.

    Attributes:
        level: Probit that the body's line has at 1 s.
        body: Slope of the probit in ln(time), long after the knee.
        knee: ln(s) where tail and body meet.
        tail: Slope long before the knee.
        width: Width of the knee in ln(s).
    """

    level: float
    body: float
    knee: float
    tail: float = TAIL
    width: float = WIDTH

    def probit(self, time: float) -> float:
        """Return the probit of the share after `time` s."""
        x = math.log(time)
        beyond = (self.knee - x) / self.width
        bend = beyond + math.log1p(math.exp(-beyond)) if beyond > 0.0 else math.log1p(math.exp(beyond))
        return self.level + self.body * x - (self.tail - self.body) * self.width * bend

    def share(self, time: float) -> float:
        """Return the share of cells that lost their charge after `time` s."""
        return phi(self.probit(time))


def speed_up(temperature: float, reference: float, energy: float) -> float:
    """Return how many times as fast cells lose their charge as at the reference temperature.

    Args:
        temperature, reference: In °C.
        energy: Activation energy in eV.
    """
    return math.exp(energy / BOLTZMANN * (1.0 / (reference + KELVIN) - 1.0 / (temperature + KELVIN)))


def activation_energy(factor: float, cold: float, hot: float) -> float:
    """Return the activation energy, in eV, of a `factor` between two temperatures in °C."""
    return BOLTZMANN * math.log(factor) / (1.0 / (cold + KELVIN) - 1.0 / (hot + KELVIN))
