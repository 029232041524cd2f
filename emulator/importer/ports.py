"""Inputs and outputs of the graph: which axis counts images, and the sizes that the file leaves open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weakcell.emulator.importer.parse import Port
from weakcell.emulator.ir.values import BatchAxis
from weakcell.memmodels.errors import InputError, ModelError

Shape = tuple[int, ...]

_BATCH = re.compile(r"n|b|bs|bsz|none|\?|unk_.*|.*batch.*", re.IGNORECASE)
"""Names by which exporters call the batch."""

_OTHER = re.compile(r"[lthws]|.*(seq|len|time|frame|token|height|width|step).*", re.IGNORECASE)
"""Names of axes that are no batch."""


class OpenSizesError(ModelError):
    """Dimensions of the inputs have no size.

    Attributes:
        names: of these dimensions.
    """

    def __init__(self, asked: str, found: str, do: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(asked, found, do)
        self.names = names


@dataclass(frozen=True)
class Ports:
    """The inputs of a graph with all sizes.

    Attributes:
        batch: the number of images that the file fixes; None if it leaves it open.
        name: of the dimension that counts images; "" if it has none.
        axes: of each input, the axis that counts images; None if it has none.
        shapes: of each input for one image, as the file sees it.
        sizes: the sizes of open dimensions, by name.
    """

    batch: int | None
    name: str
    axes: Mapping[str, int | None]
    shapes: Mapping[str, Shape]
    sizes: Mapping[str, int]


def bind_inputs(
    asked: str, inputs: Sequence[Port], sizes: Mapping[str, int] | None = None, like: Mapping[str, Shape] | None = None
) -> Ports:
    """Find the batch of each input, and give every open dimension a size.

    Args:
        asked: what an error says was asked.
        inputs: of the graph.
        sizes: of open dimensions, by name; a dimension that is named here is not the batch.
        like: shapes of data, by input; "x" stands for a sole input.

    Raises:
        InputError: the data do not fit, or `sizes` names no open dimension.
        OpenSizesError: an open dimension has no size.
    """
    for port in inputs:
        if port.dims is None or any(d is not None and d < 1 for d in port.dims):
            shape = "unknown" if port.dims is None else str(list(port.dims))
            raise ModelError(asked, f"the input {port.name!r} has the shape {shape}", "Export it with positive or named sizes")
    known = dict(sizes or {})
    axes, batch, name = _find_batch(inputs, known)
    open_names = {
        _dimension(port, i) for port in inputs for i, d in enumerate(port.dims or ()) if d is None and axes[port.name] != i
    }
    unknown = sorted(set(known) - open_names)
    if unknown:
        has = f"its open dimensions are {', '.join(sorted(open_names))}" if open_names else "it has no open dimension but the batch"
        raise InputError(f"Size of the dimension {unknown[0]!r}", has, "Name one of these, or leave it out")
    for port in inputs:
        key = "x" if len(inputs) == 1 and port.name not in (like or {}) else port.name
        if like is not None and key in like:
            _bind_to_data(port, axes[port.name], like[key], known)
    missing = sorted(open_names - known.keys())
    if missing:
        shapes = "; ".join(f"{port.name} {_shown(port)}" for port in inputs)
        do = f"Give each a size: --shape {missing[0]}=32, in Python shapes={{{missing[0]!r}: 32}}"
        raise OpenSizesError(asked, f"it leaves {', '.join(missing)} open ({shapes})", do, tuple(missing))
    shapes_of = {
        port.name: tuple(
            1 if i == axes[port.name] else known[_dimension(port, i)] if d is None else d for i, d in enumerate(port.dims or ())
        )
        for port in inputs
    }
    return Ports(batch, name, axes, shapes_of, known)


def _dimension(port: Port, axis: int) -> str:
    """Return the name of an open dimension; nameless ones are called after their input."""
    return port.names[axis] or f"{port.name}[{axis}]"


def _shown(port: Port) -> str:
    return f"[{', '.join(_dimension(port, i) if d is None else str(d) for i, d in enumerate(port.dims or ()))}]"


def _find_batch(inputs: Sequence[Port], sizes: Mapping[str, int]) -> tuple[dict[str, int | None], int | None, str]:
    """Return the batch axis of each input, the fixed batch or None, and the name of the batch."""
    axes: dict[str, int | None] = {}
    for port in inputs:
        dims = port.dims or ()
        free = [i for i, d in enumerate(dims) if d is None and _dimension(port, i) not in sizes]
        named = [i for i in free if _BATCH.fullmatch(port.names[i])]
        first = [i for i in free if i == 0 and not _OTHER.fullmatch(port.names[i])]
        axes[port.name] = next(iter(named or first), None)
    names = {port.names[axis] for port in inputs if (axis := axes[port.name]) is not None}
    if names:  # inputs without it are the same for all images
        return axes, None, max(names)
    fixed = {port.dims[0] for port in inputs if port.dims}
    batch = fixed.pop() if len(fixed) == 1 else 1 if 1 in fixed else None
    for port in inputs:
        axes[port.name] = 0 if port.dims and batch is not None and port.dims[0] == batch else None
    return axes, batch, ""


def _bind_to_data(port: Port, axis: int | None, shape: Shape, known: dict[str, int]) -> None:
    """Add the sizes of open dimensions that an array of data has."""
    dims = port.dims or ()
    for positions in _layouts(len(dims), axis, shape):
        if all(dims[i] in (None, size) for i, size in positions):
            break
    else:
        return  # the data may still mean the same images in another shape; the run checks it
    for i, size in positions:
        name = _dimension(port, i)
        if dims[i] is None and known.setdefault(name, size) != size:
            found = f"the data of {port.name!r} have the shape {list(shape)}, and {name} is {known[name]} elsewhere"
            raise InputError(f"Input {port.name!r} {_shown(port)}", found, "Bring data in which equal names have equal sizes")


def _layouts(rank: int, axis: int | None, shape: Shape) -> list[list[tuple[int, int]]]:
    """Return how data may lie: as the file says, or with the images first. As (axis of the file, size), without the batch."""
    others = [i for i in range(rank) if i != axis]
    layouts = []
    if len(shape) == rank:
        layouts.append([(i, shape[i]) for i in others])
    if len(shape) == len(others) + 1:
        layouts.append(list(zip(others, shape[1:], strict=True)))
    return layouts


def output_axis(port: Port, shape: Shape, ports: Ports) -> BatchAxis | None:
    """Return the axis of an output that counts images, for an output whose first axis is not the batch of 1.

    Args:
        port: the output as the file declares it.
        shape: its ONNX shape for one image.
        ports: the inputs.

    Returns:
        None if no axis counts images.
    """
    dims = port.dims if port.dims is not None and len(port.dims) == len(shape) else None
    ones = [i for i, n in enumerate(shape) if n == 1]
    if dims is None:
        candidates = ones[:1] if len(ones) == 1 else [] if ones or not shape else [0]
    elif ports.batch is not None:
        candidates = [i for i, (d, n) in enumerate(zip(dims, shape, strict=True)) if d == n * ports.batch or d is None]
        candidates = candidates if ports.batch > 1 else ones[:1]
    else:
        free = [i for i, d in enumerate(dims) if d is None and port.names[i] not in ports.sizes]
        named = [i for i in free if port.names[i] == ports.name and ports.name]
        wrong = [i for i in ones if dims[i] not in (None, 1)]  # the file declares another shape than its graph gives
        candidates = [i for i in named if shape[i] == 1] or wrong or [i for i in free if shape[i] == 1] or named or free
    if not candidates or all(axis is None for axis in ports.axes.values()):
        return None
    return BatchAxis(candidates[0], folded=shape[candidates[0]] > 1)
