"""Running a plan: layer by layer, chunk by chunk of images; and inference without faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.conv_inputs import unpack_values
from weakcell.emulator.engine.fusion import compute_step, fused_steps
from weakcell.emulator.engine.layer_functions import to_channels_last, to_onnx_order
from weakcell.emulator.ir.layer import Layer
from weakcell.emulator.ir.layers import Convolution, DynamicQuantize
from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.operators import FloatOperator
from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.plan.parameters import ParameterState, fault_free_parameters
from weakcell.emulator.plan.plan import CHUNK_BYTES, Plan
from weakcell.memmodels.errors import InputError, ModelError

T = TypeVar("T")
Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Compute = Callable[[Layer, list[Array], int], Array]
"""Returns a layer's output, given its inputs and the number of the first image of the chunk."""
Store = Callable[[str, Array, int], Array]
"""Returns a value as later layers read it, given its name, the value, and the number of the first image of the chunk."""

_CHUNK_IMAGES = 384
"""Largest number of images in a chunk: a whole number of micro-kernel tiles."""


def infer(
    plan: Plan, inputs: Arrays, probe: Sequence[str] = (), threads: int = 1, dynamic: Literal["batch", "image"] = "image"
) -> dict[str, Array]:
    """Compute fault-free outputs, and the values named by `probe`, in ONNX order and dtype.

    Args:
        plan: the compiled network.
        inputs: arrays (n, *shape) by input name.
        probe: names of further values that are wanted.
        threads: threads that share the images; the results are the same.
        dynamic: what DynamicQuantizeLinear takes its range from: each image, as runs with faults do, or all images together, as
            the ONNX file says of a batch (by groups where the file fixes the batch).

    Returns:
        Arrays (n, *shape) by name.

    Raises:
        InputError: an input is missing, misshapen, or not an integer where it must be.
        ModelError: the network has no value that `probe` names.
    """
    unknown = [name for name in probe if name not in plan.network.values]
    if unknown:
        known = ", ".join(plan.network.values)
        raise ModelError(f"Probing {unknown[0]!r}", "the network has no such value after import", f"It has: {known}")
    wanted = (*plan.network.outputs, *probe)
    checked = check_inputs(plan, inputs)
    is_dynamic = any(isinstance(layer, DynamicQuantize) for layer in plan.network.layers)
    if dynamic == "batch" and plan.network.batch != 1:
        _refuse_ranges_of_images(plan)
    if dynamic == "batch" and plan.network.batch != 1 and is_dynamic:
        return gather(plan, wanted, _values_of_batches(plan, checked, wanted, threads))
    return gather(plan, wanted, fault_free_values(plan, checked, wanted, threads))


def fault_free_values(plan: Plan, inputs: Arrays, wanted: Sequence[str], threads: int = 1) -> Iterator[dict[str, Array]]:
    """Yield fault-free values in physical form, chunk by chunk. inputs: from `check_inputs`."""
    return values_with(fault_free_parameters(plan), inputs, wanted, threads)


def values_with(parameters: ParameterState, inputs: Arrays, wanted: Sequence[str], threads: int = 1) -> Iterator[dict[str, Array]]:
    """Yield values computed with the current parameters, in physical form, chunk by chunk. inputs: from `check_inputs`."""
    plan, layers = parameters.plan, fused_steps(parameters.plan, wanted)
    step = choose_chunk_size(plan, layers, len(next(iter(inputs.values()))), threads)
    return _run_with(parameters, inputs, wanted, layers, step, threads)


def _run_with(
    parameters: ParameterState, inputs: Arrays, wanted: Sequence[str], layers: Sequence[Layer], step: int, threads: int
) -> Iterator[dict[str, Array]]:
    return run_layers(inputs, wanted, layers, step, lambda layer, x, _: compute_step(layer, x, parameters), threads=threads)


def _refuse_ranges_of_images(plan: Plan) -> None:
    """ModelError if an operator can only take its range from each image."""
    for layer in plan.network.layers:
        if isinstance(layer, FloatOperator) and layer.each_image and "DynamicQuantize" in layer.op_type:
            found = f"{layer.name!r} quantizes each image by itself"
            raise ModelError("Taking the range of DynamicQuantizeLinear from the whole batch", found, "Leave out --dynamic batch")


# ── dynamic quantization over a batch ───────────────────────────────────────────────────────────────


def _values_of_batches(plan: Plan, inputs: Arrays, wanted: Sequence[str], threads: int) -> Iterator[dict[str, Array]]:
    """Yield fault-free values of one batch after the other, dynamically quantized over the batch."""
    images = len(next(iter(inputs.values())))
    step = plan.network.batch or max(images, 1)
    for first in range(0, max(images, 1), step):
        yield _values_of_batch(plan, {name: x[first : first + step] for name, x in inputs.items()}, wanted, threads)


def _values_of_batch(plan: Plan, inputs: Arrays, wanted: Sequence[str], threads: int) -> dict[str, Array]:
    """Run the layers in sections, chunk by chunk; a section ends where the range of the whole batch must be known."""
    quantized = {layer.inputs[0] for layer in plan.network.layers if isinstance(layer, DynamicQuantize)}
    layers = fused_steps(plan, (*wanted, *quantized))
    ranges: dict[str, tuple[float, float]] = {}
    parameters = fault_free_parameters(plan).with_ranges(ranges)
    values, start = dict(inputs), 0
    while start < len(layers):
        end = start
        while end < len(layers) and not (set(layers[end].inputs) & (quantized - ranges.keys())):
            end += 1
        if end > start:
            _run_section(parameters, layers, slice(start, end), values, wanted, threads)
        for name in set(layers[end].inputs) & quantized if end < len(layers) else ():
            ranges[name] = float(values[name].min(initial=0)), float(values[name].max(initial=0))
        start = end
    return {name: values[name] for name in wanted}


def _run_section(
    parameters: ParameterState,
    layers: Sequence[Layer],
    section: slice,
    values: dict[str, Array],
    wanted: Sequence[str],
    threads: int,
) -> None:
    """Run some layers; put the values that later ones need into `values`, and take out those that nobody needs any more."""
    own_layers = layers[section]
    later = {*wanted, *(name for layer in layers[section.stop :] for name in layer.inputs)}
    results = [layer.output for layer in own_layers if layer.output in later]
    read = {name for layer in own_layers for name in layer.inputs}
    inputs = {name: x for name, x in values.items() if name in read}
    step = choose_chunk_size(parameters.plan, own_layers, len(next(iter(inputs.values()))), threads)
    chunks = list(_run_with(parameters, inputs, results, own_layers, step, threads))
    for name in set(values) - later:
        del values[name]
    values.update({name: np.concatenate([chunk[name] for chunk in chunks]) for name in results})


# ── inputs ──────────────────────────────────────────────────────────────────────────────────────────


def check_inputs(plan: Plan, inputs: Arrays) -> dict[str, Array]:
    """Return the graph inputs in physical form.

    Args:
        plan: the compiled network.
        inputs: arrays (n, *shape) by input name.

    Raises:
        InputError: an input is missing, misshapen, or not an integer where it must be.
    """
    network, checked = plan.network, {}
    for name in network.inputs:
        spec = network.values[name]
        if name not in inputs:
            raise InputError(
                f"Input {name!r} of {network.name}", f"the data have {', '.join(inputs) or 'nothing'}", "Name the array so"
            )
        x = np.asarray(inputs[name])
        if x.dtype.kind not in "buif":
            raise InputError(f"Input {name!r} of {network.name}", f"the data are of type {x.dtype}", "Bring real numbers")
        if x.shape[1:] != spec.shape:
            if not _fits(x.shape, spec.shape):
                raise InputError(
                    f"Input {name!r} of {network.name}, shape (n, {', '.join(map(str, spec.shape))})",
                    f"the data have shape {x.shape}",
                    "Bring images of that shape, the first axis counting them",
                )
            x = x.reshape(len(x), *spec.shape)
        checked[name] = _typed(x, spec) if spec.kind == "float" else to_channels_last(_integers(x, spec), spec)
    if len({len(x) for x in checked.values()}) > 1:
        counts = ", ".join(f"{len(x)} in {name}" for name, x in checked.items())
        raise InputError(f"Inputs of {network.name}", f"they hold different numbers of images: {counts}", "Bring as many in each")
    return checked


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Return whether data of another shape mean the same images: flattened, or with more or fewer axes of size 1."""
    if not given or math.prod(given[1:]) != math.prod(shape):
        return False
    return len(given) == 2 or [n for n in given[1:] if n != 1] == [n for n in shape if n != 1]


def _typed(x: Array, spec: ValueSpec) -> Array:
    """Return data in the type of an ONNX input; integers must stay what they are."""
    dtype = np.dtype(spec.dtype)
    with np.errstate(invalid="ignore"):
        typed = x.astype(dtype)
    if dtype.kind in "iu" and x.dtype != dtype and np.any(typed != x):
        odd = x[typed != x].reshape(-1)
        found = f"the data have values like {odd[0]!s}"
        raise InputError(f"Input {spec.name!r}, which holds {spec.dtype}", found, f"Bring integers of the type {spec.dtype}")
    return typed


def _integers(x: Array, spec: ValueSpec) -> Array:
    info = np.iinfo(spec.dtype)
    high = (1 << 15) - 1 if spec.dtype == "int32" else info.max
    low = max(info.min, -high - 1)
    if x.dtype.kind in "iub":
        invalid, integers = bool(x.size and (x.min() < low or x.max() > high)), x.astype(spec.dtype)
    else:
        integers = np.empty(x.shape, spec.dtype)
        invalid = entry_points.to_integers(np.ascontiguousarray(x).reshape(-1), low, high, integers.reshape(-1)) > 0
    if invalid:
        odd = x[~((x == np.rint(x)) & (x <= high) & (x >= low))]
        raise InputError(
            f"Input {spec.name!r}, which the first layer reads as integers",
            f"the data have values like {float(odd[0]):g}",
            "Feed integer pixels, or export the network with its scaling inside, or import it with integer_input=False",
        )
    return integers


# ── layer by layer ──────────────────────────────────────────────────────────────────────────────────


def run_layers(
    inputs: Arrays,
    wanted: Sequence[str],
    layers: Sequence[Layer],
    step: int,
    compute: Compute,
    *,
    store: Store = lambda name, x, first: x,
    threads: int = 1,
    last_uses: Sequence[Collection[str]] | None = None,
) -> Iterator[dict[str, Array]]:
    """Compute layer after layer for one chunk of images after the other.

    Args:
        inputs: all values that the layers need and do not make, in physical form.
        wanted: names of the values to yield.
        layers: the layers or fused steps.
        step: images per chunk.
        compute: computes a layer.
        store: called with every value, including the inputs; what it returns is what later layers read.
        threads: threads that share the chunks.
        last_uses: `find_last_uses`, if that is known already.

    Yields:
        The wanted values of each chunk, in order.
    """
    images, last_uses = len(next(iter(inputs.values()))), last_uses or find_last_uses(layers, keep=wanted)

    def run_chunk(first: int) -> dict[str, Array]:
        values = {name: store(name, x[first : first + step], first) for name, x in inputs.items()}
        for layer, unused in zip(layers, last_uses, strict=True):
            output = compute(layer, [values[name] for name in layer.inputs], first)
            values[layer.output] = store(layer.output, output, first)
            for name in unused:
                del values[name]
        return {name: values[name] for name in wanted}

    starts = range(0, max(images, 1), step)
    threads = min(threads, len(starts))
    return iter(map_in_threads(run_chunk, starts, threads)) if threads > 1 else map(run_chunk, starts)


def map_in_threads(function: Callable[[int], T], items: Sequence[int], threads: int) -> list[T]:
    """Return the function's results for all items, in order.

    This thread works, too, so the work begins before any other thread is awake. After an error, no further item is begun, and the
    error is raised.
    """
    waiting, results, lock = list(enumerate(items)), {}, Lock()

    def work() -> None:
        try:
            while True:
                with lock:
                    if not waiting:
                        return
                    position, item = waiting.pop(0)
                results[position] = function(item)
        finally:
            with lock:
                waiting.clear()  # after an error, nothing new begins

    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work) for _ in range(threads - 1)]
        work()
    for other in others:
        other.result()
    return [results[position] for position in range(len(items))]


def find_last_uses(layers: Sequence[Layer], keep: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return for each layer the values that no later layer reads and `keep` does not name."""
    last = {name: position for position, layer in enumerate(layers) for name in (*layer.inputs, layer.output)}
    return tuple(
        tuple(name for name, end in last.items() if end == position and name not in keep) for position in range(len(layers))
    )


def choose_chunk_size(plan: Plan, layers: Sequence[Layer], images: int, threads: int) -> int:
    """Return the images per chunk with which all threads get the same number of chunks.

    Args:
        plan: the compiled network.
        layers: the layers or fused steps.
        images: images in the run.
        threads: threads that share the chunks.
    """
    step = chunk_size(plan.network, layers, plan.chunk_bytes)
    if any(_sums_floats(plan.network, layer) for layer in layers):
        return step  # sums of floats depend on what is summed together: such networks keep their chunks
    if threads == 1:
        return min(step, max(images, 1))
    rounds = -(-images // (step * threads))
    return max(1, -(-images // max(rounds * threads, 1)))


def _sums_floats(network: Network, layer: Layer) -> bool:
    return isinstance(layer, FloatOperator) or (isinstance(layer, Convolution) and network.values[layer.inputs[0]].kind == "float")


def chunk_size(network: Network, layers: Sequence[Layer] = (), chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return the images per chunk with which the values of a chunk stay in cache: 384 or one of its halves, down to 1.

    Args:
        network: the network.
        layers: its layers as they are fused; all of them if empty.
        chunk_bytes: what the largest value of a chunk may take.
    """
    specs = [network.values[name] for layer in layers or network.layers for name in (*layer.inputs, layer.output)]
    largest = max(math.prod(spec.shape) * _bits_per_element(spec) // 8 for spec in specs)
    return max(1, _CHUNK_IMAGES >> max(0, _CHUNK_IMAGES * largest // chunk_bytes).bit_length())


def _bits_per_element(spec: ValueSpec) -> int:
    return 1 if spec.kind == "bits" else np.dtype(spec.dtype).itemsize * 8


# ── results ─────────────────────────────────────────────────────────────────────────────────────────


def gather(plan: Plan, wanted: Sequence[str], chunks: Iterator[dict[str, Array]]) -> dict[str, Array]:
    """Concatenate chunks, and return each value in ONNX order."""
    parts = list(chunks)
    return {name: np.concatenate([_as_onnx(part[name], plan.network.values[name]) for part in parts]) for name in wanted}


def map_outputs(plan: Plan, outputs: Sequence[str], chunks: Iterator[dict[str, Array]], function: Callable[..., T]) -> list[T]:
    """Return what `function` returns for the outputs of each chunk in ONNX order, so that no output of all images is in memory."""
    specs = {name: plan.network.values[name] for name in outputs}
    return [function(*(_as_onnx(chunk[name], spec) for name, spec in specs.items())) for chunk in chunks]


def _as_onnx(x: Array, spec: ValueSpec) -> Array:
    return x if spec.kind == "float" else to_onnx_order(unpack_values(x, spec), spec)
