"""Output margins, neuron distances, and how many flipped cells a prediction or a neuron provably survives.

Two kinds of numbers stand side by side. The *stated* bounds are those of Buschjäger et al. (DATE 2021), for ±1 weights on ±1
inputs. The *exact* counts are the largest for which the claim still holds: one flip more, chosen as badly as possible, breaks it.

NOTES for developers
- All comparisons are between integers. The scores of a network are acc * scale + offset before its last requantization; scales and
  offsets are float32, so a common power of two turns them into integers (`OutputLayer.unit` turns them back).
- A flipped stored bit adds a constant to its weight, whatever the other bits do, so the effects of flips on one sum add up, and
  taking the most harmful bits first finds the smallest number that breaks it. Flipped *inputs* are another matter: with ±1
  weights one counts as one flip of every neuron that it feeds (`unit_tolerance`); with wider weights `greedy_tolerance` speaks of
  the inputs that reached the layer.
"""

from weakcell.emulator.margins.flip_bounds import Flippable, bit_units, neuron_bound, neuron_exact, output_bound, output_exact
from weakcell.emulator.margins.hidden_neurons import HiddenLayer, greedy_neurons, hidden_layers, sums, windows_of
from weakcell.emulator.margins.output_margins import (
    Margins,
    OutputLayer,
    greedy_tolerance,
    largest_score,
    margins_of,
    output_layer,
    still_unique,
    unit_tolerance,
)
from weakcell.emulator.margins.summary import MarginSummary, NeuronTolerance, summarize

__all__ = [
    "Flippable",
    "HiddenLayer",
    "MarginSummary",
    "Margins",
    "NeuronTolerance",
    "OutputLayer",
    "bit_units",
    "greedy_neurons",
    "greedy_tolerance",
    "hidden_layers",
    "largest_score",
    "margins_of",
    "neuron_bound",
    "neuron_exact",
    "output_bound",
    "output_exact",
    "output_layer",
    "still_unique",
    "summarize",
    "sums",
    "unit_tolerance",
    "windows_of",
]
