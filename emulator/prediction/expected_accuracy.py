"""Expected accuracy under errors, computed without injecting a fault.

The mean of an accuracy over trials is the mean over images of P(right answer). For one image, bits fail independently, so:

    first layer       given the image, its sums are independent and their distribution is known (`layer_distribution`)
    further layers    share noisy inputs, which correlates their neurons. *Given* those inputs the neurons are independent again,
                      because each has its own weights. So the inputs of a layer are sampled, not replaced by their means.
    last layer        given its inputs, the scores are independent; P(class c is the answer) is one sum over the winner's score

Sums are sampled from their conditional distribution, `samples` times per image. Its mean and variance are exact, its shape is
approximate. The average over images and samples has a standard error. The usual mean-field method multiplies the probabilities of
neurons as if they were independent; it needs no sampling, and it is wrong where inputs are shared.

In convolutions, one weight serves many output pixels. If weights are read at most once per image, the sums of these pixels share
its flip, and the distribution of single sums is not enough. These weights are few; they are sampled bit by bit, as the engine does.
So are the weights of grouped and float layers, and weights that two layers share.

The spread of the accuracies of trials around their mean is not predicted. Trials that read weights once per batch or pass (`load`,
`batch`), and dies with permanent faults, share flips between images: their mean is the same, their spread is larger.
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
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution
from weakcell.emulator.ir.network import Network
from weakcell.emulator.kernels.entry_points import draw_sums, power_sums
from weakcell.emulator.margins import extract_windows
from weakcell.emulator.plan.parameters import ParameterState, new_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.emulator.prediction.bit_rates import BitRates, compute_bit_rates
from weakcell.emulator.prediction.layer_distribution import LayerDistribution, RowGroup
from weakcell.emulator.prediction.scoring import ScoredLayer, find_scored_layer
from weakcell.emulator.prediction.sum_kernels import SumSampling, normal_table
from weakcell.emulator.prediction.sum_moments import FaultFreeSums, SumMoments
from weakcell.emulator.tasks import ClassTask
from weakcell.memmodels.catalogue import MemorySpec
from weakcell.memmodels.errors import UsageError
from weakcell.memmodels.sampling.streams import derive_stream

Array = npt.NDArray[Any]

_BIAS = 1.0
"""Points of accuracy per distance of the sums of a layer from their exact distribution."""
_UNSEEN = 2.0
"""So many outcomes may be too rare to have been sampled (Agresti and Coull add two to each kind)."""
_SCORE_SAMPLES = 4
"""Flips of the last layer are sampled so often per sample. It has few outputs, and the mean has less noise."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction for one operating point. All shares are in [0, 1].

    Attributes:
        accuracy: Expected accuracy; None without labels.
        changed: Expected share of answers that differ from the fault-free network.
        error: Standard error of accuracy and changed, from sampling.
        bias: Bound of the error from approximate distributions of sums.
        half_width: Half-width of the 95 % interval of the mean over infinitely many trials, sampling and bias together.
        right: P(the answer is the label) per image; None without labels.
        same: P(the answer is that of the fault-free network) per image.
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
    """Predict the mean result of `run_trial` over infinitely many dies, writes and reads.

    Args:
        plan: The compiled network.
        placements: The operating points.
        questions: Inputs, labels and task.
        policy: When weights are read again. `load`, `batch` and `image` have the same mean.
        samples: Samples per image, at least 2 for the standard error.
        seed: Seed of the samples.
        threads: Worker threads.
        on_chunk: Called with the number of images that were just finished.

    Returns:
        One prediction per placement.

    Raises:
        UsageError: The cells of a memory do not fail independently, or the score is not a share of right answers.
    """
    if samples < 2:
        raise UsageError(f"Prediction from {samples} samples", "the standard error takes two", "Draw at least 2 per image")
    task = _check_task(plan.network, questions)
    points = tuple(_FaultModel.of(plan, placement, policy, samples, seed) for placement in placements)
    predictor = _ChunkPredictor(plan, points, samples, seed, task)
    inputs, step = check_inputs(plan, questions.inputs), chunk_size(plan.network)
    labels = task.best(questions.fault_free_answers) if questions.labels is None else questions.labels
    shares = np.empty((3, len(placements), samples, questions.images))

    def predict_chunk(first: int) -> int:
        rows = slice(first, min(first + step, questions.images))
        chunk = {name: x[rows] for name, x in inputs.items()}
        shares[..., rows] = predictor.run(chunk, first, (labels[rows], questions.fault_free_answers[rows]))
        return rows.stop - rows.start

    with ThreadPoolExecutor(threads, thread_name_prefix="predict") as pool:
        for done in pool.map(predict_chunk, range(0, questions.images, step)):
            if on_chunk:
                on_chunk(done)
    if questions.labels is not None:
        shares[0] *= task.weights(questions.labels)
    return [_summarize(shares[:, number], questions.labels is not None, point.any) for number, point in enumerate(points)]


def _check_task(network: Network, questions: EvaluationSet) -> ClassTask:
    """Return the task if its score is a share of right answers; otherwise raise UsageError."""
    task, metric = questions.task, questions.metric
    if isinstance(task, ClassTask) and metric.name in ("accuracy", "unchanged"):
        return task
    advice = "Give --task pixels:score=accuracy, or emulate" if isinstance(task, ClassTask) else "Emulate it"
    found = f"its output {task.output!r} is judged as {task.words} by the {metric.words}; predicted are shares of right answers"
    raise UsageError(f"Predicting {network.name}", found, advice)


def _summarize(shares: Array, labelled: bool, has_errors: bool) -> Prediction:
    """Summarize right, same and distance, (3, samples, images). has_errors: whether any weight can be read wrong."""
    from scipy.special import stdtrit

    right, same, distance = shares.mean(axis=1)
    samples, images = shares.shape[1], max(same.size, 1)
    errors = np.sqrt(shares[:2].var(axis=1, ddof=1).sum(axis=1) / samples) / images
    error, bias = float(errors.max()), float(distance.sum() / images) * _BIAS
    unseen = _UNSEEN / (samples * images) if has_errors else 0.0
    half_width = float(stdtrit((samples - 1) * images, 0.975)) * error + unseen + bias
    accuracy = float(right.mean()) if labelled and same.size else None
    changed = float(1 - same.mean()) if same.size else 0.0
    return Prediction(accuracy, changed, error, bias, half_width, right if labelled else None, same)


# ── fault models ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _FaultModel:
    """Faults of one operating point.

    distributions: of the layers whose sums are sampled, by layer name. deployments: one per sample, of the weights that are sampled
    bit by bit.
    """

    distributions: Mapping[str, LayerDistribution]
    deployments: tuple[Deployment, ...]

    @property
    def any(self) -> bool:
        """Whether any weight can be read wrong."""
        return bool(self.distributions) or bool(self.deployments[0].slots)

    @classmethod
    def of(cls, plan: Plan, placement: Placement, policy: ReadPolicy, samples: int, seed: int) -> _FaultModel:
        network = plan.network
        rates = compute_bit_rates(network, placement)
        unsupported = [name for name in rates if plan.storable[name].role != "weight"]
        if unsupported:
            asked = f"Predicting {network.name} with faulty {unsupported[0]}"
            raise UsageError(asked, "prediction knows the law of faulty weights only", "Emulate it, or take it out of --place")
        sum_layers = [layer for layer in _list_sum_layers(network, policy) if layer.weight in rates]
        distributions = {
            layer.name: LayerDistribution.of(network.tensors[layer.weight], _get_bias(network, layer), rates[layer.weight])
            for layer in sum_layers
        }
        by_sum = {layer.weight for layer in sum_layers}
        by_bit = _to_uniform_placement({name: tensor_rates for name, tensor_rates in rates.items() if name not in by_sum})
        reads = ReadPolicy.ACCESS if policy is ReadPolicy.ACCESS else ReadPolicy.IMAGE
        deployments = tuple(deploy(plan, by_bit, reads, trial=sample, seed=seed) for sample in range(samples))
        return cls(distributions, deployments)


def _list_sum_layers(network: Network, policy: ReadPolicy) -> list[Convolution]:
    """List the layers whose sums are independent given their inputs, and linear in the weights (no sum wraps in int32)."""
    layers = [layer for layer in network.layers if isinstance(layer, Convolution)]
    users = Counter(name for layer in network.layers for name in layer.tensor_names())
    sum_layers = []
    for layer in layers:
        kind, tensor = network.values[layer.inputs[0]].kind, network.tensors[layer.weight]
        if kind == "float" or layer.groups != 1 or tensor.block or users[layer.weight] > 1 or layer.wraps:
            continue
        one_pixel = network.values[layer.output].height_width == (1, 1)
        if one_pixel or policy is ReadPolicy.ACCESS:
            sum_layers.append(layer)
    return sum_layers


def _get_bias(network: Network, layer: Convolution) -> Array | None:
    return network.tensors[layer.bias].values if layer.bias else None


def _to_uniform_placement(rates: Mapping[str, BitRates]) -> Placement:
    """Return a placement with these bit error rates, independent at every read."""
    arrays: list[MemorySpec] = [MemorySpec("uniform", {"ber": 0.0})]
    slots = []
    for name, tensor_rates in rates.items():
        pairs = list(zip(tensor_rates.p01.tolist(), tensor_rates.p10.tolist(), strict=True))
        for p01, p10 in sorted(set(pairs) - {(0.0, 0.0)}):
            spec = MemorySpec("uniform", {"p01": p01, "p10": p10})
            if spec not in arrays:
                arrays.append(spec)
            slots.append(Slot(name, tuple(i for i, pair in enumerate(pairs) if pair == (p01, p10)), arrays.index(spec)))
    return Placement(tuple(arrays), tuple(slots))


# ── prediction of a chunk ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _ChunkPredictor:
    """Predicts all points and samples of a chunk of images. Layers before the first error are computed once for all of them."""

    plan: Plan
    points: tuple[_FaultModel, ...]
    samples: int
    seed: int
    task: ClassTask

    def run(self, inputs: Mapping[str, Array], first: int, targets: tuple[Array, Array]) -> Array:
        """Return probabilities of the targets (labels, fault-free answers), and distances from the exact distributions.

        Returns:
            float64 (3, points, samples, images).
        """
        network, parameters = self.plan.network, new_parameters(self.plan)
        faulty = {name for point in self.points for name in (*point.distributions, *_list_bit_layers(network, point))}
        by_sum = {name for point in self.points for name in point.distributions}
        sums = {layer.output for layer in network.layers if layer.name in by_sum}
        head = find_scored_layer(network, self.task)
        wanted = {self.task.output, *sums, *((head.layer.accumulator, head.layer.input) if head else ())}
        steps = fuse_layers(network, wanted)
        is_faulty = [any(part.name in faulty for part in unfused_layers(step)) for step in steps]
        first_faulty = is_faulty.index(True) if any(is_faulty) else len(steps)
        values = dict(inputs)
        for step in steps[:first_faulty]:
            values[step.output] = _compute_fault_free(step, values, parameters)
        faulty_steps: Sequence[Layer] = steps[first_faulty:]
        cache: dict[str, FaultFreeSums] = {}
        needed = {name for step in faulty_steps for name in step.inputs} | wanted
        values = {name: x for name, x in values.items() if name in needed}
        out = np.zeros((3, len(self.points), self.samples, len(targets[1])))
        for number, point in enumerate(self.points):
            for sample in range(self.samples):
                run = _SampleRun(self, point, sample, first, parameters, head, cache, out[2, number, sample])
                out[:2, number, sample] = run.finish(faulty_steps, dict(values), targets, {*wanted, *values})
        return out


def _list_bit_layers(network: Network, point: _FaultModel) -> list[str]:
    slots = point.deployments[0].slots
    return [layer.name for layer in network.layers if not slots.keys().isdisjoint(layer.tensor_names())]


def _compute_fault_free(step: Layer, values: Mapping[str, Array], parameters: ParameterState) -> Array:
    return compute_step(step, [values[name] for name in step.inputs], parameters)


@dataclass(frozen=True, eq=False)
class _SampleRun:
    """One point and sample of a chunk.

    cache: fault-free sums of layers whose inputs are fault-free; all points and samples of the chunk share it, in one thread.
    distance: of each image, the distances from the exact distributions, added up over layers.
    """

    predictor: _ChunkPredictor
    point: _FaultModel
    sample: int
    first: int
    parameters: ParameterState
    head: ScoredLayer | None
    cache: dict[str, FaultFreeSums]
    distance: npt.NDArray[np.float64]

    def finish(self, steps: Sequence[Layer], values: dict[str, Array], targets: tuple[Array, Array], keep: set[str]) -> Array:
        """Run the rest of the network; if the distribution of the last layer is known, compute the probabilities from it.

        Returns:
            float64 (2, images): probabilities or shares of the two targets.
        """
        network, deployment = self.parameters.plan.network, self.point.deployments[self.sample]
        fault_free = set(values)
        for step, unused in zip(steps, find_last_uses(steps, keep), strict=True):
            distribution = self.point.distributions.get(step.name)
            if distribution is not None and isinstance(step, Convolution):
                sums = self._compute_sums(step, values, cached=step.inputs[0] in fault_free)
                if self.head and step.output == self.head.layer.accumulator:
                    return self._score(step, sums, distribution, np.stack(targets).astype(np.int64))
                values[step.output] = self._sample_sums(step, sums, distribution)
            elif stored := deployment.slots_of(step):
                inputs = [values[name] for name in step.inputs]
                reads = LayerReads(self.parameters, deployment, stored, self.first)
                values[step.output] = compute_with_resampled_weights(step, inputs, reads)
            else:
                values[step.output] = _compute_fault_free(step, values, self.parameters)
            for name in unused:
                values.pop(name, None)
        task = self.predictor.task
        spec, x = network.values[task.output], values[task.output]
        answers = task.answers(x if spec.kind == "float" else to_onnx_order(unpack_values(x, spec), spec))
        return np.stack([task.share_right(answers, targets[0]), task.share_same(answers, targets[1])])

    def _compute_sums(self, layer: Convolution, values: Mapping[str, Array], cached: bool) -> FaultFreeSums:
        if cached and layer.name in self.cache:
            return self.cache[layer.name]
        sums = compute_fault_free_sums(layer, values[layer.inputs[0]], self.parameters)
        if cached:
            self.cache[layer.name] = sums
        return sums

    def _sample_sums(self, layer: Convolution, sums: FaultFreeSums, distribution: LayerDistribution) -> Array:
        """Sample faulty sums, in the layout of the engine."""
        height, width = self.parameters.plan.network.values[layer.output].height_width
        names = np.arange(len(sums.sums)) + self.first * height * width
        out = np.empty_like(sums.sums)
        for group in distribution.group_rows(sums):
            group_names = names[group.indices]
            changes = distribution.sample_changes(group, self._stream(layer, 1), group_names)
            out[group.indices] = changes + self._sample_smooth(layer, group, group_names)
            images = group.indices // (height * width)
            self.distance[:] += np.bincount(images, group.distance, len(self.distance)) / (height * width)
        return out.reshape(-1, height, width, out.shape[1])

    def _sample_smooth(self, layer: Convolution, group: RowGroup, names: npt.NDArray[np.int64]) -> Array:
        """Sample the sums of a group with errors in the planes of the smooth distribution."""
        sums, moments = group.sums, group.moments
        if moments is None:
            return sums.sums
        extra, out = moments.extra_mean(sums), np.empty_like(sums.sums)
        sampling = SumSampling(
            float(moments.slope), moments.shift, moments.tilt, sums.total,
            np.empty((0, 0), np.float32) if extra is None else extra, _compute_deviation(moments, sums),
            group.shape.astype(np.float32), float(moments.step),
        )  # fmt: skip
        draw_sums(sums.sums, sampling, normal_table(), self._stream(layer), names, out)
        return out

    def _score(self, layer: Convolution, sums: FaultFreeSums, distribution: LayerDistribution, targets: Array) -> Array:
        """Return the probabilities of the target classes, (targets, images): means over samples of the flips in the last layer."""
        assert self.head is not None
        out, names = np.zeros(targets.shape), np.arange(len(sums.sums)) + self.first
        for group in distribution.group_rows(sums):
            samples = _SCORE_SAMPLES if group.planes else 1
            for sample in range(samples):
                changes = distribution.sample_changes(group, self._stream(layer, 1 + sample), names[group.indices])
                out[:, group.indices] += self.head.compute_probabilities(group, changes, targets[:, group.indices]) / samples
            self.distance[group.indices] += group.distance
        return out

    def _stream(self, layer: Convolution, *more: int) -> np.uint64:
        return derive_stream(self.predictor.seed, self.sample, self.parameters.plan.network.layers.index(layer), *more)


def _compute_deviation(moments: SumMoments, sums: FaultFreeSums) -> Array:
    """Return the standard deviation before rounding to the grid, which adds step² / 12 to the variance (Sheppard)."""
    deviation: Array = np.sqrt(np.maximum(moments.variance(sums) - np.float32(moments.step**2 / 12), 0))
    return deviation


def compute_fault_free_sums(layer: Convolution, x: Array, parameters: ParameterState) -> FaultFreeSums:
    """Compute the fault-free sums of a layer, and the sums of powers of its inputs.

    Args:
        layer: The layer.
        x: Its input, in the layout of the engine.
        parameters: Parameters of the run.
    """
    network = parameters.plan.network
    spec, outputs = network.values[layer.inputs[0]], network.tensors[layer.weight].shape[0]
    sums = compute(layer, [x], parameters).reshape(-1, outputs)
    wide = unpack_values(x, spec).astype(np.int32) - (spec.zero_point if spec.kind == "codes" else 0)

    def rows() -> Array:
        return extract_windows(np.ascontiguousarray(wide.transpose(0, 3, 1, 2)), layer).reshape(len(sums), -1).astype(np.float32)

    unit = spec.kind == "bits" and not any(layer.window.pads)
    return FaultFreeSums(np.ascontiguousarray(sums), _power_sums(layer, wide), rows, unit)


def _power_sums(layer: Convolution, x: Array) -> Array:
    """Sum x, x², x³, x⁴ and x⁶ over each window; float64 (n · H' · W', 5)."""
    whole = layer.window.kernel == x.shape[1:3] and not any(layer.window.pads)
    flat = np.ascontiguousarray(x).reshape(len(x) if whole else x[..., 0].size, -1)
    sums = np.empty((len(flat), 5))
    power_sums(flat, sums)
    if not whole:
        planes = np.ascontiguousarray(sums.reshape(*x.shape[:3], 5).transpose(0, 3, 1, 2))
        sums = np.stack([extract_windows(planes[:, [q]], layer).sum(axis=3).reshape(-1) for q in range(5)], axis=1)
    return sums
