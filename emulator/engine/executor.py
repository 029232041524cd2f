"""A walk over a plan: chunk by chunk of images, layer by layer; and inference without faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from weakcell.emulator.engine.convolution import values_of
from weakcell.emulator.engine.fusion import compute_step, steps_of
from weakcell.emulator.engine.layer_functions import to_channels_last, to_onnx_order
from weakcell.emulator.ir import layers as nw
from weakcell.emulator.kernels import entry_points
from weakcell.emulator.plan.parameters import ParameterState, fault_free_parameters
from weakcell.emulator.plan.plan import Plan
from weakcell.memmodels.errors import InputError, ModelError

T = TypeVar("T")
Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Make = Callable[[nw.Layer, list[Array], int], Array]
Hold = Callable[[str, Array, int], Array]
"""The output of a layer, and a value as layers read it, by name; the number says which of the images is the first of the chunk."""

_CHUNK_BYTES, _CHUNK_IMAGES = 2 << 20, 384
"""What the largest value of a chunk may take, and images that are a whole number of tiles; chunks never change results."""


def infer(
    plan: Plan, inputs: Arrays, probe: Sequence[str] = (), threads: int = 1, dynamic: Literal["batch", "image"] = "batch"
) -> dict[str, Array]:
    """Compute fault-free outputs, and the values named by `probe`, in ONNX order and dtype: {name: (n, *shape)}.

    Args:
        plan: The compiled network.
        inputs: Arrays (n, *shape) by input name.
        probe: Names of further values that are wanted.
        threads: Threads that share the images; the results are the same.
        dynamic: What DynamicQuantizeLinear takes its range from: all images together, as the ONNX file says (by groups where the
            file fixes the batch), or each image, as runs with faults do.
    """
    unknown = [name for name in probe if name not in plan.network.values]
    if unknown:
        known = ", ".join(plan.network.values)
        raise ModelError(f"Probing {unknown[0]!r}", "the network has no such value after import", f"It has: {known}")
    wanted = (*plan.network.outputs, *probe)
    checked = check_inputs(plan, inputs)
    if dynamic == "batch" and plan.network.batch != 1 and any(isinstance(one, nw.DynamicQuantize) for one in plan.network.layers):
        return gather(plan, wanted, _values_of_batches(plan, checked, wanted, threads))
    return gather(plan, wanted, fault_free_values(plan, checked, wanted, threads))


def fault_free_values(plan: Plan, inputs: Arrays, wanted: Sequence[str], threads: int = 1) -> Iterator[dict[str, Array]]:
    """Fault-free values in physical form, chunk by chunk, of inputs that are checked already."""
    return values_with(fault_free_parameters(plan), inputs, wanted, threads)


def values_with(parameters: ParameterState, inputs: Arrays, wanted: Sequence[str], threads: int = 1) -> Iterator[dict[str, Array]]:
    """The same with parameters as they are."""
    plan, layers = parameters.plan, steps_of(parameters.plan, wanted)
    step = chunk_of(plan, layers, len(next(iter(inputs.values()))), threads)
    return walk(inputs, wanted, layers, step, lambda layer, own, _: compute_step(layer, own, parameters), threads=threads)


def _values_of_batches(plan: Plan, inputs: Arrays, wanted: Sequence[str], threads: int) -> Iterator[dict[str, Array]]:
    """Fault-free values of one batch after the other, dynamically quantized over the batch."""
    images = len(next(iter(inputs.values())))
    step = plan.network.batch or max(images, 1)
    for first in range(0, max(images, 1), step):
        yield _values_of_batch(plan, {name: x[first : first + step] for name, x in inputs.items()}, wanted, threads)


def _values_of_batch(plan: Plan, inputs: Arrays, wanted: Sequence[str], threads: int) -> dict[str, Array]:
    """The layers are walked in sections, chunk by chunk: each ends where the range of the whole batch must be known."""
    quantized = {layer.inputs[0] for layer in plan.network.layers if isinstance(layer, nw.DynamicQuantize)}
    layers = steps_of(plan, (*wanted, *quantized))
    ranges: dict[str, tuple[float, float]] = {}
    parameters = fault_free_parameters(plan).with_ranges(ranges)
    values, start = dict(inputs), 0
    while start < len(layers):
        end = start
        while end < len(layers) and not (set(layers[end].inputs) & (quantized - ranges.keys())):
            end += 1
        if end > start:
            _walk_section(parameters, layers, (start, end), values, wanted, threads)
        for name in set(layers[end].inputs) & quantized if end < len(layers) else ():
            ranges[name] = float(values[name].min(initial=0)), float(values[name].max(initial=0))
        start = end
    return {name: values[name] for name in wanted}


def _walk_section(
    parameters: ParameterState,
    layers: Sequence[nw.Layer],
    section: tuple[int, int],
    values: dict[str, Array],
    wanted: Sequence[str],
    threads: int,
) -> None:
    """Put the values that later sections need into `values`, and take out those that nobody needs any more."""
    own = layers[section[0] : section[1]]
    later = {*wanted, *(name for layer in layers[section[1] :] for name in layer.inputs)}
    kept = [layer.output for layer in own if layer.output in later]
    read = {name for layer in own for name in layer.inputs}
    inputs = {name: x for name, x in values.items() if name in read}
    step = chunk_of(parameters.plan, own, len(next(iter(inputs.values()))), threads)
    parts = list(walk(inputs, kept, own, step, lambda layer, given, _: compute_step(layer, given, parameters), threads=threads))
    for name in set(values) - later:
        del values[name]
    values.update({name: np.concatenate([part[name] for part in parts]) for name in kept})


def check_inputs(plan: Plan, inputs: Arrays) -> dict[str, Array]:
    """The graph inputs in physical form; InputError if one is missing, misshapen, or not an integer where it must be."""
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
        checked[name] = x.astype(np.float32) if spec.kind == "float" else to_channels_last(_integers(x, spec), spec)
    if len({len(x) for x in checked.values()}) > 1:
        counts = ", ".join(f"{len(x)} in {name}" for name, x in checked.items())
        raise InputError(f"Inputs of {network.name}", f"they hold different numbers of images: {counts}", "Bring as many in each")
    return checked


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether data of another shape mean the same images: flattened, or with axes of size 1 more or less."""
    if not given or math.prod(given[1:]) != math.prod(shape):
        return False
    return len(given) == 2 or [n for n in given[1:] if n != 1] == [n for n in shape if n != 1]


def _integers(x: Array, spec: nw.ValueSpec) -> Array:
    info = np.iinfo(spec.dtype)
    high = (1 << 15) - 1 if spec.dtype == "int32" else info.max
    low = max(info.min, -high - 1)
    made = np.empty(x.shape, spec.dtype)
    if entry_points.to_integers(np.ascontiguousarray(x).reshape(-1), low, high, made.reshape(-1)):
        odd = x[~((x == np.rint(x)) & (x <= high) & (x >= low))]
        raise InputError(
            f"Input {spec.name!r}, which the first layer reads as integers",
            f"the data have values like {float(odd[0]):g}",
            "Feed integer pixels, or export the network with its scaling inside, or import it with integer_input=False",
        )
    return made


def _as_it_is(name: str, x: Array, first: int) -> Array:
    return x


def walk(
    inputs: Arrays,
    wanted: Sequence[str],
    layers: Sequence[nw.Layer],
    step: int,
    make: Make,
    hold: Hold = _as_it_is,
    threads: int = 1,
    dead: Sequence[Collection[str]] | None = None,
) -> Iterator[dict[str, Array]]:
    """Let `make` compute layer after layer for `step` images after the other; yields the wanted values of each chunk, in order.

    inputs: in physical form: all that the layers need and do not make. threads: so many chunks at a time. dead: `find_last_uses`,
    if that is known already.
    """
    images, dead = len(next(iter(inputs.values()))), dead or find_last_uses(layers, keep=wanted)

    def chunk(first: int) -> dict[str, Array]:
        values = {name: hold(name, x[first : first + step], first) for name, x in inputs.items()}
        for layer, unused in zip(layers, dead, strict=True):
            made = make(layer, [values[name] for name in layer.inputs], first)
            values[layer.output] = hold(layer.output, made, first)
            for name in unused:
                del values[name]
        return {name: values[name] for name in wanted}

    starts = range(0, max(images, 1), step)
    threads = min(threads, len(starts))
    return iter(_shared(chunk, starts, threads)) if threads > 1 else map(chunk, starts)


def _shared(make: Callable[[int], T], items: Sequence[int], threads: int) -> list[T]:
    """What is made of each item, by this thread and others: so the work begins before any other is awake."""
    left, made, turn = list(enumerate(items)), {}, Lock()

    def work() -> None:
        try:
            while True:
                with turn:
                    if not left:
                        return
                    place, item = left.pop(0)
                made[place] = make(item)
        finally:
            with turn:
                left.clear()  # after an error, nothing new begins

    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work) for _ in range(threads - 1)]
        work()
    for other in others:
        other.result()
    return [made[place] for place in range(len(items))]


def find_last_uses(layers: Sequence[nw.Layer], keep: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return for each layer the values that no later layer reads and `keep` does not name."""
    last = {name: position for position, layer in enumerate(layers) for name in (*layer.inputs, layer.output)}
    return tuple(
        tuple(name for name, end in last.items() if end == position and name not in keep) for position in range(len(layers))
    )


def chunk_of(plan: Plan, layers: Sequence[nw.Layer], images: int, threads: int) -> int:
    """Images per chunk, so that as many chunks come to each of the threads.

    Sums of floats depend on what is summed together: networks with such keep their chunks.
    """
    step = chunk_size(plan.network, layers)
    if any(_sums_floats(plan.network, layer) for layer in layers):
        return step
    if threads == 1:
        return min(step, max(images, 1))
    rounds = -(-images // (step * threads))
    return max(1, -(-images // max(rounds * threads, 1)))


def _sums_floats(network: nw.Network, layer: nw.Layer) -> bool:
    return isinstance(layer, nw.FloatOperator) or (
        isinstance(layer, nw.Convolution) and network.values[layer.inputs[0]].kind == "float"
    )


def chunk_size(network: nw.Network, layers: Sequence[nw.Layer] = ()) -> int:
    """Images per chunk, so that what the layers write stays near the processor: 384 and its halves, down to 1. layers: as fused."""
    specs = [network.values[name] for layer in layers or network.layers for name in (*layer.inputs, layer.output)]
    largest = max(math.prod(spec.shape) * _bits_of(spec) // 8 for spec in specs)
    return max(1, _CHUNK_IMAGES >> max(0, _CHUNK_IMAGES * largest // _CHUNK_BYTES).bit_length())


def _bits_of(spec: nw.ValueSpec) -> int:
    return 1 if spec.kind == "bits" else np.dtype(spec.dtype).itemsize * 8


def gather(plan: Plan, wanted: Sequence[str], parts: Iterator[dict[str, Array]]) -> dict[str, Array]:
    """Concatenate chunks and give each value its ONNX order."""
    chunks = list(parts)
    return {name: np.concatenate([_as_onnx(chunk[name], plan.network.values[name]) for chunk in chunks]) for name in wanted}


def read_off(plan: Plan, outputs: Sequence[str], parts: Iterator[dict[str, Array]], read: Callable[..., T]) -> list[T]:
    """What `read` makes of outputs in ONNX order, chunk by chunk: no output of all images is ever held."""
    specs = {name: plan.network.values[name] for name in outputs}
    return [read(*(_as_onnx(chunk[name], spec) for name, spec in specs.items())) for chunk in parts]


def _as_onnx(x: Array, spec: nw.ValueSpec) -> Array:
    return x if spec.kind == "float" else to_onnx_order(values_of(x, spec), spec)
