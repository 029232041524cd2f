"""The fault-free twin of all faulty runs: its values, and the flips that they tolerate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator import margins as mg
from weakcell.emulator.engine.executor import infer
from weakcell.emulator.faults.deployment import ReadPolicy, Sampling
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.plan.plan import Plan, compile_plan
from weakcell.host.study.study import ResolvedStudy
from weakcell.memmodels.errors import UsageError

Array = npt.NDArray[Any]

_HIDDEN_BYTES = 2 << 30
"""The most memory that the hidden sums of all images may take."""


@dataclass(frozen=True, eq=False)
class FaultFreeTwin:
    """The fault-free network's values, and the flips that they tolerate; all trials share it.

    Attributes:
        plan: The network, compiled with the inner values as additional outputs.
        head: The output layer.
        hidden: The hidden layers that are checked.
        inputs: Images by input name.
        values: Outputs and inner values by name.
        margins: Scores and margins of the images.
        flippable: By weight tensor, the bits that can flip at some point.
        greedy: (images, classes): flips that each competitor needs, the most harmful bits first.
        answers: The answers of the fault-free network.
        labels: Labels, or None.
        neurons: By hidden accumulator, the flips that each neuron tolerates.
    """

    plan: Plan
    head: mg.OutputLayer
    hidden: tuple[mg.HiddenLayer, ...]
    inputs: Mapping[str, Array]
    values: Mapping[str, Array]
    margins: mg.Margins
    flippable: Mapping[str, mg.Flippable]
    greedy: Array
    answers: Array
    labels: Array | None
    neurons: Mapping[str, Array]

    def of_images(self, images: Array) -> FaultFreeTwin:
        """Return the twin of some images only, given by their numbers."""
        m = self.margins
        return replace(
            self,
            inputs={name: x[images] for name, x in self.inputs.items()},
            values={name: x[images] for name, x in self.values.items()},
            margins=mg.Margins(m.scores[images], m.winner[images], m.gaps[images], m.margin[images]),
            greedy=self.greedy[images],
            answers=self.answers[images],
            labels=None if self.labels is None else self.labels[images],
            neurons={name: x[images] for name, x in self.neurons.items()},
        )


def compute_twin(resolved: ResolvedStudy, hidden: bool, by_spec: bool) -> FaultFreeTwin:
    """Run the fault-free network once, and compute the flips that its output (and hidden) neurons tolerate.

    Args:
        resolved: The study.
        hidden: Include hidden layers.
        by_spec: The memories are those of the SPECs, so that bits which these never flip do not count.

    Raises:
        UsageError: A flip could reach what no bound speaks of, or there is too much to hold in memory.
        ModelError: The network's output layer is not supported.
    """
    network = resolved.network
    resolved.workload.require_class_scores("Validating")
    head = mg.find_output_layer(network)
    layers = mg.find_hidden_layers(network) if hidden else ()
    parts: tuple[mg.OutputLayer | mg.HiddenLayer, ...] = (head, *layers)
    probes = dict.fromkeys(name for part in parts for name in (part.accumulator, part.input))
    wide = replace(network, outputs=tuple(dict.fromkeys((*network.outputs, *probes))))
    _check(resolved, head, layers, wide)
    plan = compile_plan(wide)
    values = infer(plan, resolved.questions.inputs)
    margins = mg.compute_margins(head.scores(values[head.accumulator]))
    flippable = {part.tensor.name: _flippable(resolved, part.tensor.name, by_spec) for part in parts}
    greedy = mg.compute_output_tolerance(head, values[head.input], margins, flippable[head.tensor.name])
    neurons = {}
    for layer in layers:
        if not layer.binary:
            h, x = values[layer.accumulator], values[layer.input]
            neurons[layer.accumulator] = mg.compute_neuron_tolerance(layer, x, h, flippable[layer.tensor.name])
    return FaultFreeTwin(
        plan,
        head,
        layers,
        resolved.questions.inputs,
        values,
        margins,
        flippable,
        greedy,
        resolved.questions.fault_free_answers,
        resolved.questions.labels,
        neurons,
    )


def _check(resolved: ResolvedStudy, head: mg.OutputLayer, layers: tuple[mg.HiddenLayer, ...], wide: Network) -> None:
    """UsageError if a flip could reach what no bound speaks of, or if there is too much to hold in memory."""
    asked = f"Validating {resolved.model.name}"
    parts: tuple[mg.OutputLayer | mg.HiddenLayer, ...] = (head, *layers)
    convolutions = [layer for layer in resolved.network.layers if isinstance(layer, Convolution)]
    watched = {part.tensor.name: part.layer for part in parts}
    fixed = {part.layer.bias for part in parts if part.layer.bias}
    if layers:
        fixed |= {t.name for t in resolved.network.tensors.values() if t.role == "threshold"}
    others = ("scale", "zero_point", "buffer", "accumulator", "cache")
    fixed |= {name for name, item in resolved.plan.storable.items() if item.role in others}
    for point in resolved.points:
        moved = [slot.tensor for slot in point.placement.slots if slot.tensor in fixed]
        if moved:
            raise UsageError(
                asked, f"{moved[0]} can be faulty, and the bounds are about weights and inputs", "Take it out of --place"
            )
        if not any(slot.tensor in watched for slot in point.placement.slots) and not point.placement.slots:
            raise UsageError(asked, "nothing lives in a memory", "Give --memory")
    for name in watched:
        if sum(layer.weight == name for layer in convolutions) > 1:
            raise UsageError(asked, f"the weights {name} are used by two layers", "Validate networks whose layers have their own")
    if resolved.study.sampling is Sampling.OUTPUTS:
        raise UsageError(asked, "with --sampling outputs there are no flips to count", "Validate with --sampling bits")
    if layers and resolved.study.read_every is ReadPolicy.ACCESS:
        raise UsageError(
            asked, "with --read-every access each pixel sees weights of its own", "Leave --hidden out, or read per image"
        )
    size = sum(int(np.prod(wide.values[name].shape)) for name in wide.outputs) * 16 * len(resolved.dataset)
    if layers and size > _HIDDEN_BYTES:
        most = max(1, len(resolved.dataset) * _HIDDEN_BYTES // size)
        raise UsageError(
            asked, f"hidden sums of {len(resolved.dataset)} images take {size >> 20} MiB", f"Give --images {most} or less"
        )


def _flippable(resolved: ResolvedStudy, tensor: str, by_spec: bool) -> mg.Flippable:
    """Return the bits of a tensor that can flip at some point; a `uniform` memory flips only bits whose rate is not 0."""
    bits = resolved.network.tensors[tensor].encoding.bits
    rises, falls = np.zeros(bits, np.bool_), np.zeros(bits, np.bool_)
    for point in resolved.points:
        for slot in point.placement.slots_of(tensor):
            spec = point.placement.arrays[slot.array]
            plain = by_spec and spec.name == "uniform"
            rates = [spec.conditions.get(key, spec.conditions.get("ber", 0.0)) if plain else 1.0 for key in ("p01", "p10")]
            rises[list(slot.planes)] |= bool(rates[0])
            falls[list(slot.planes)] |= bool(rates[1])
    return mg.Flippable(rises, falls)
