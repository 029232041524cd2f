"""Accuracy under errors without a fault: every layer's sums drawn from their law, the last layer's probabilities worked out.

The mean over trials of an accuracy is the mean over images of P(right answer). For one image, bits err independently, so:

    first layer       its sums are independent of each other given the image, and their law is known (`sum_law`)
    further layers    share noisy inputs, which correlates their neurons. *Given* those inputs the neurons are independent again,
                      each having weights of its own; so a layer's inputs are drawn, never replaced by their means
    last layer        given its inputs the scores are independent; P(class c is the answer) is one sum over the winner's score

Drawing is from the exact conditional law (normal from here on: mean and variance are exact, the shape is not), `samples` times per
image; the average over images and samples has the standard error that comes with it. Multiplying probabilities of neurons as if
they were independent, the usual mean field, needs no draw and is wrong where inputs are shared.

Where one weight serves many pixels (convolutions, if weights are read at most once per image), sums of different pixels share
its flip and no law of single sums will do: those weights, few, are drawn bit by bit as the engine does. So are weights of grouped
and float layers, and those that two layers share.

What this does not say: how accuracies of trials spread around their mean. Trials that read weights once per batch or pass
(`load`, `batch`), and dies with persistent faults, share flips between images; the mean is the same, the spread is not predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.conv_inputs import unpack_values
from weakcell.emulator.engine.executor import check_inputs, chunk_size, find_last_uses
from weakcell.emulator.engine.fusion import compute_step, fuse_layers, unfused_layers
from weakcell.emulator.engine.layer_functions import compute, to_onnx_order
from weakcell.emulator.evaluation.trials import EvaluationSet
from weakcell.emulator.faults.deployment import Deployment, deploy
from weakcell.emulator.faults.kernel_reads import LayerReads
from weakcell.emulator.faults.placement import Placement, Slot
from weakcell.emulator.faults.read_policy import DEFAULT_POLICY, ReadPolicy
from weakcell.emulator.faults.resampling import compute_with_resampled_weights
from weakcell.emulator.ir.layers import Convolution, Layer, Network
from weakcell.emulator.margins import extract_windows
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.prediction.bit_rates import BitRates, bit_rates
from weakcell.emulator.prediction.layer_distribution import LayerLaw, Part
from weakcell.emulator.prediction.scoring import ScoredLayer, scored_layer
from weakcell.emulator.prediction.sum_kernels import draw_sums, normal_table, power_sums
from weakcell.emulator.prediction.sum_moments import CleanSums, SumLaw
from weakcell.emulator.tasks import ClassTask
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.sampling.streams import derive_stream

Array = npt.NDArray[Any]

_BIAS = 1.0
"""Points of accuracy per distance of a layer's sums from their law."""
_UNSEEN = 2.0
"""Outcomes too rare to have been drawn: so many may be missing (Agresti and Coull add two to each kind)."""
_DRAWS_OF_SCORES = 4
"""Where flips of the last layer are drawn, so often per sample; it has few outputs, and the mean has less noise."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of one operating point: shares in [0, 1]. error: the standard error that drawing leaves, of accuracy and of changed.

    bias: how far from the mean over infinitely many trials a prediction may lie because sums are drawn from approximate laws.
    half_width: of the interval that holds that mean with a probability of 95 %, sampling and bias together.
    right, same: per image, P(the answer is the label) and P(it is the clean network's); right is None without labels.
    """

    accuracy: float | None
    changed: float
    error: float
    bias: float
    half_width: float
    right: npt.NDArray[np.float64] | None
    same: npt.NDArray[np.float64]


def predict(
    plan: Plan,
    placements: Sequence[Placement],
    questions: EvaluationSet,
    policy: ReadPolicy = DEFAULT_POLICY,
    *,
    samples: int = 2,
    seed: int = 0,
    threads: int = 1,
    on_chunk: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """What `run_trial` would find on average over infinitely many dies and draws, for each placement.

    samples: draws per image of what is drawn; at least 2, which the standard error needs. Policies load, batch and image have the
    same mean. on_chunk: told how many images were just finished. UsageError where a memory's cells do not err independently.
    """
    if samples < 2:
        raise UsageError(f"Prediction from {samples} samples", "the standard error takes two", "Draw at least 2 per image")
    task = _predictable(plan.network, questions)
    walk = _Walk(plan, tuple(_Errors.of(plan, placement, policy, samples, seed) for placement in placements), samples, seed, task)
    inputs, step = check_inputs(plan, questions.inputs), chunk_size(plan.network)
    labels = task.best(questions.fault_free_answers) if questions.labels is None else questions.labels
    made = np.empty((3, len(placements), samples, questions.images))

    def part(first: int) -> int:
        at = slice(first, min(first + step, questions.images))
        chunk = {name: x[at] for name, x in inputs.items()}
        made[..., at] = walk.run(chunk, first, (labels[at], questions.fault_free_answers[at]))
        return at.stop - at.start

    with ThreadPoolExecutor(threads, thread_name_prefix="predict") as pool:
        for done in pool.map(part, range(0, questions.images, step)):
            if on_chunk:
                on_chunk(done)
    if questions.labels is not None:
        made[0] *= task.weights(questions.labels)
    return [_summary(made[:, point], questions.labels is not None, errors.any) for point, errors in enumerate(walk.points)]


def _predictable(network: Network, questions: EvaluationSet) -> ClassTask:
    """The task, if its score is a mean of right answers; UsageError if not."""
    task, metric = questions.task, questions.metric
    if isinstance(task, ClassTask) and metric.name in ("accuracy", "unchanged"):
        return task
    do = "Give --task pixels:score=accuracy, or emulate" if isinstance(task, ClassTask) else "Emulate it"
    found = f"its output {task.output!r} is judged as {task.words} by the {metric.words}; predicted are shares of right answers"
    raise UsageError(f"Predicting {network.name}", found, do)


def _summary(made: Array, labelled: bool, errs: bool) -> Prediction:
    """made: (right, same and distance; samples, images). errs: whether any weight can err."""
    from scipy.special import stdtrit

    right, same, distance = made.mean(axis=1)
    samples, images = made.shape[1], max(same.size, 1)
    errors = np.sqrt(made[:2].var(axis=1, ddof=1).sum(axis=1) / samples) / images
    error, bias = float(errors.max()), float(distance.sum() / images) * _BIAS
    unseen = _UNSEEN / (samples * images) if errs else 0.0
    half_width = float(stdtrit((samples - 1) * images, 0.975)) * error + unseen + bias
    accuracy = float(right.mean()) if labelled and same.size else None
    changed = float(1 - same.mean()) if same.size else 0.0
    return Prediction(accuracy, changed, error, bias, half_width, right if labelled else None, same)


# ── what errs ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _Errors:
    """One operating point: the laws of the layers whose sums are drawn, by layer name, and deployments (one per sample) of the
    weights that are drawn bit by bit."""

    laws: Mapping[str, LayerLaw]
    deployments: tuple[Deployment, ...]

    @property
    def any(self) -> bool:
        """Whether any weight can err."""
        return bool(self.laws) or bool(self.deployments[0].slots)

    @classmethod
    def of(cls, plan: Plan, placement: Placement, policy: ReadPolicy, samples: int, seed: int) -> _Errors:
        network = plan.network
        rates = bit_rates(network, placement)
        odd = [name for name in rates if plan.storable[name].role != "weight"]
        if odd:
            asked = f"Predicting {network.name} with faulty {odd[0]}"
            raise UsageError(asked, "prediction knows the law of faulty weights only", "Emulate it, or take it out of --place")
        drawn = [layer for layer in _drawn_by_sum(network, policy) if layer.weight in rates]
        laws = {
            layer.name: LayerLaw.of(network.tensors[layer.weight], _bias(network, layer), rates[layer.weight]) for layer in drawn
        }
        by_sum = {layer.weight for layer in drawn}
        rest = _as_uniform(network, {name: own for name, own in rates.items() if name not in by_sum})
        reads = ReadPolicy.ACCESS if policy is ReadPolicy.ACCESS else ReadPolicy.IMAGE
        own = tuple(deploy(plan, rest, reads, trial=sample, seed=seed) for sample in range(samples))
        return cls(laws, own)


def _drawn_by_sum(network: Network, policy: ReadPolicy) -> list[Convolution]:
    """Layers whose sums are independent of each other given their inputs, and linear in the weights: none wraps in int32."""
    layers = [layer for layer in network.layers if isinstance(layer, Convolution)]
    users = Counter(name for layer in network.layers for name in layer.tensor_names())
    found = []
    for layer in layers:
        kind, tensor = network.values[layer.inputs[0]].kind, network.tensors[layer.weight]
        if kind == "float" or layer.groups != 1 or tensor.block or users[layer.weight] > 1 or layer.wraps:
            continue
        alone = network.values[layer.output].height_width == (1, 1)
        if alone or policy is ReadPolicy.ACCESS:
            found.append(layer)
    return found


def _bias(network: Network, layer: Convolution) -> Array | None:
    return network.tensors[layer.bias].values if layer.bias else None


def _as_uniform(network: Network, rates: Mapping[str, BitRates]) -> Placement:
    """A placement that errs at these rates, independently at every read."""
    arrays: list[MemorySpec] = [MemorySpec("uniform", {"ber": 0.0})]
    slots = []
    for name, own in rates.items():
        pairs = list(zip(own.p01.tolist(), own.p10.tolist(), strict=True))
        for p01, p10 in sorted(set(pairs) - {(0.0, 0.0)}):
            spec = MemorySpec("uniform", {"p01": p01, "p10": p10})
            if spec not in arrays:
                arrays.append(spec)
            slots.append(Slot(name, tuple(i for i, pair in enumerate(pairs) if pair == (p01, p10)), arrays.index(spec)))
    return Placement(tuple(arrays), tuple(slots))


# ── the walk ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _Walk:
    """All points and samples of one chunk of images; what comes before the first error is computed once for all of them."""

    plan: Plan
    points: tuple[_Errors, ...]
    samples: int
    seed: int
    task: ClassTask

    def run(self, inputs: Mapping[str, Array], first: int, targets: tuple[Array, Array]) -> Array:
        """(3, points, samples, images): shares or probabilities of the targets (labels and clean answers), and distances of sums
        from their laws."""
        network, parameters = self.plan.network, new_parameters(self.plan)
        faulty = {name for point in self.points for name in (*point.laws, *_drawn_by_bit(network, point))}
        sums = {layer.output for layer in network.layers if layer.name in {name for point in self.points for name in point.laws}}
        head = scored_layer(network, self.task)
        wanted = {self.task.output, *sums, *((head.layer.accumulator, head.layer.input) if head else ())}
        steps = fuse_layers(network, wanted)
        cut = next((i for i, step in enumerate(steps) if any(part.name in faulty for part in unfused_layers(step))), len(steps))
        values = dict(inputs)
        for step in steps[:cut]:
            values[step.output] = _clean(step, values, parameters)
        rest: Sequence[Layer] = steps[cut:]
        known: dict[str, CleanSums] = {}
        kept = {name for step in rest for name in step.inputs} | wanted
        values = {name: x for name, x in values.items() if name in kept}
        out = np.zeros((3, len(self.points), self.samples, len(targets[1])))
        for place, errors in enumerate(self.points):
            for sample in range(self.samples):
                run = _Run(self, errors, sample, first, parameters, head, known, out[2, place, sample])
                out[:2, place, sample] = run.finish(rest, dict(values), targets, {*wanted, *values})
        return out


def _drawn_by_bit(network: Network, errors: _Errors) -> list[str]:
    slots = errors.deployments[0].slots
    return [layer.name for layer in network.layers if not slots.keys().isdisjoint(layer.tensor_names())]


def _clean(step: Layer, values: Mapping[str, Array], parameters: ParameterState) -> Array:
    return compute_step(step, [values[name] for name in step.inputs], parameters)


@dataclass(frozen=True, eq=False)
class _Run:
    """One point and sample of a chunk; `known` keeps the clean sums of layers whose inputs are the images' own.

    distance: of each image, how far sums are from the laws that they were drawn from, added up over layers.
    """

    walk: _Walk
    errors: _Errors
    sample: int
    first: int
    parameters: ParameterState
    head: ScoredLayer | None
    known: dict[str, CleanSums]
    distance: npt.NDArray[np.float64]

    def finish(self, steps: Sequence[Layer], values: dict[str, Array], targets: tuple[Array, Array], keep: set[str]) -> Array:
        """(2, images): walk the rest of the network; the last layer's law, if it is known, ends it."""
        network, deployment = self.parameters.plan.network, self.errors.deployments[self.sample]
        clean = set(values)
        for step, dead in zip(steps, find_last_uses(steps, keep), strict=True):
            law = self.errors.laws.get(step.name)
            if law is not None and isinstance(step, Convolution):
                sums = self._clean_sums(step, values, cached=step.inputs[0] in clean)
                if self.head and step.output == self.head.layer.accumulator:
                    return self._scored(step, sums, law, np.stack(targets).astype(np.int64))
                values[step.output] = self._drawn(step, sums, law)
            elif stored := deployment.slots_of(step):
                own = [values[name] for name in step.inputs]
                reads = LayerReads(self.parameters, deployment, stored, self.first)
                values[step.output] = compute_with_resampled_weights(step, own, reads)
            else:
                values[step.output] = _clean(step, values, self.parameters)
            for name in dead:
                values.pop(name, None)
        task = self.walk.task
        spec, x = network.values[task.output], values[task.output]
        answers = task.answers(x if spec.kind == "float" else to_onnx_order(unpack_values(x, spec), spec))
        return np.stack([task.share_right(answers, targets[0]), task.share_same(answers, targets[1])])

    def _clean_sums(self, layer: Convolution, values: Mapping[str, Array], cached: bool) -> CleanSums:
        if cached and layer.name in self.known:
            return self.known[layer.name]
        made = clean_sums(layer, values[layer.inputs[0]], self.parameters)
        if cached:
            self.known[layer.name] = made
        return made

    def _drawn(self, layer: Convolution, clean: CleanSums, law: LayerLaw) -> Array:
        """The layer's sums with errors, in the engine's own form."""
        height, width = self.parameters.plan.network.values[layer.output].height_width
        names = np.arange(len(clean.sums)) + self.first * height * width
        out = np.empty_like(clean.sums)
        for part in law.parts(clean):
            own = names[part.places]
            jumps = law.jumps(part, self._stream(layer, 1), own)
            out[part.places] = jumps + self._smooth(layer, part, own)
            self.distance[:] += np.bincount(part.places // (height * width), part.distance, len(self.distance)) / (height * width)
        return out.reshape(-1, height, width, out.shape[1])

    def _smooth(self, layer: Convolution, part: Part, names: npt.NDArray[np.int64]) -> Array:
        """Sums of a part with errors in the planes that have a normal law."""
        clean, law = part.clean, part.law
        if law is None:
            return clean.sums
        extra, out = law.extra_mean(clean), np.empty_like(clean.sums)
        draw_sums(
            clean.sums, np.float32(law.slope), law.shift, law.tilt, clean.total,
            np.empty((0, 0), np.float32) if extra is None else extra, _deviation(law, clean), part.shape.astype(np.float32),
            np.float32(law.step), normal_table(), self._stream(layer), names, out,
        )  # fmt: skip
        return out

    def _scored(self, layer: Convolution, clean: CleanSums, law: LayerLaw, targets: Array) -> Array:
        """(targets, images): probabilities of the target classes, the mean over draws of the flips in the last layer."""
        assert self.head is not None
        out, names = np.zeros(targets.shape), np.arange(len(clean.sums)) + self.first
        for part in law.parts(clean):
            draws = _DRAWS_OF_SCORES if part.planes else 1
            for draw in range(draws):
                jumps = law.jumps(part, self._stream(layer, 1 + draw), names[part.places])
                out[:, part.places] += self.head.probabilities(part, jumps, targets[:, part.places]) / draws
            self.distance[part.places] += part.distance
        return out

    def _stream(self, layer: Convolution, *more: int) -> np.uint64:
        return derive_stream(self.walk.seed, self.sample, self.parameters.plan.network.layers.index(layer), *more)


def _deviation(law: SumLaw, clean: CleanSums) -> Array:
    """Standard deviation before rounding to the grid of steps, which adds step^2 / 12 to the variance (Sheppard)."""
    deviation: Array = np.sqrt(np.maximum(law.variance(clean) - np.float32(law.step**2 / 12), 0))
    return deviation


def clean_sums(layer: Convolution, x: Array, parameters: ParameterState) -> CleanSums:
    """A layer's sums without errors, and what their law needs to know of its inputs (in the engine's own form)."""
    network = parameters.plan.network
    spec, outputs = network.values[layer.inputs[0]], network.tensors[layer.weight].values.shape[0]
    sums = compute(layer, [x], parameters).reshape(-1, outputs)
    wide = unpack_values(x, spec).astype(np.int32) - (spec.zero_point if spec.kind == "codes" else 0)

    def rows() -> Array:
        return extract_windows(np.ascontiguousarray(wide.transpose(0, 3, 1, 2)), layer).reshape(len(sums), -1).astype(np.float32)

    unit = spec.kind == "bits" and not any(layer.window.pads)
    return CleanSums(np.ascontiguousarray(sums), _power_sums(layer, wide), rows, unit)


def _power_sums(layer: Convolution, x: Array) -> Array:
    """Sums of x, x^2, x^3, x^4 and x^6 over each window: (n * H' * W', 5) float64."""
    whole = layer.window.kernel == x.shape[1:3] and not any(layer.window.pads)
    flat = np.ascontiguousarray(x).reshape(len(x) if whole else x[..., 0].size, -1)
    made = np.empty((len(flat), 5))
    power_sums(flat, made)
    if not whole:
        planes = np.ascontiguousarray(made.reshape(*x.shape[:3], 5).transpose(0, 3, 1, 2))
        made = np.stack([extract_windows(planes[:, [q]], layer).sum(axis=3).reshape(-1) for q in range(5)], axis=1)
    return made
