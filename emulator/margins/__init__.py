"""Margins: how far scores and neurons are from changing, and how many flipped cells they provably survive.

There are two kinds of numbers. The *published bounds* are those of Buschjäger et al. (DATE 2021), for ±1 weights on ±1 inputs. The
*exact counts* are the largest numbers for which the claim holds: one flip more, chosen as badly as possible, breaks it.

All comparisons are between integers. The scores of a network are acc · scale + offset before its last requantization. Scales and
offsets are float32, so one power of two turns all of them into integers (`OutputLayer.unit` turns them back).

A flipped stored bit adds a constant to its weight, whatever the other bits do. So the effects of flips on one sum add up. Taking
the most harmful bits first gives the smallest number that breaks the claim. Flipped *inputs* are different: with ±1 weights, a
flipped input counts as one flip of every neuron that it feeds (`compute_unit_tolerance`); with wider weights,
`compute_output_tolerance` takes the inputs as they reached the layer.
"""

from weakcell.emulator.margins.flip_counts import (
    Flippable,
    compute_bit_effects,
    neuron_bound,
    neuron_exact,
    output_bound,
    output_exact,
)
from weakcell.emulator.margins.hidden_neurons import (
    HiddenLayer,
    compute_neuron_tolerance,
    extract_windows,
    find_hidden_layers,
    reshape_sums,
)
from weakcell.emulator.margins.output_margins import (
    Margins,
    OutputLayer,
    compare_winner,
    compute_margins,
    compute_output_tolerance,
    compute_score_bound,
    compute_unit_tolerance,
    find_output_layer,
)
from weakcell.emulator.margins.summary import MarginSummary, NeuronTolerance, summarize

__all__ = [
    "Flippable",
    "HiddenLayer",
    "MarginSummary",
    "Margins",
    "NeuronTolerance",
    "OutputLayer",
    "compare_winner",
    "compute_bit_effects",
    "compute_margins",
    "compute_neuron_tolerance",
    "compute_output_tolerance",
    "compute_score_bound",
    "compute_unit_tolerance",
    "extract_windows",
    "find_hidden_layers",
    "find_output_layer",
    "neuron_bound",
    "neuron_exact",
    "output_bound",
    "output_exact",
    "reshape_sums",
    "summarize",
]
