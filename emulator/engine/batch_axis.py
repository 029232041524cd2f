"""Inputs and outputs as the file lays them out, and as the engine does: images along the first axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.network import Network
from weakcell.emulator.ir.values import BatchAxis

Array = npt.NDArray[Any]

_FIRST = BatchAxis(0)


def images_first(network: Network, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays of the network's inputs with the images along the first axis.

    Args:
        network: the network.
        arrays: by input name; as the file lays them out, or with the images first already. An input whose file has no axis for
            images may have its shape of one image, and is the same for all images then.
    """
    arranged, shared = dict(arrays), []
    for name in network.inputs:
        place, shape = network.batch_axes.get(name, _FIRST), network.values[name].shape
        if name not in arrays or place == _FIRST:
            continue
        x = arrays[name]
        if place is None and x.shape == shape:
            arranged[name] = x[None]
            shared.append(name)
        elif place is not None and x.ndim == len(shape) + 1 and (*x.shape[: place.axis], *x.shape[place.axis + 1 :]) == shape:
            arranged[name] = np.moveaxis(x, place.axis, 0)
    images = {len(x) for name, x in arranged.items() if name not in shared and x.ndim}
    if len(images) == 1:
        count = images.pop()
        arranged |= {name: np.broadcast_to(arranged[name], (count, *arranged[name].shape[1:])) for name in shared}
    return arranged


def as_in_the_file(network: Network, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return outputs (n, *shape) with the images along the axis where the file has them.

    An output without such an axis has its shape in the file for one image, and the images along the first axis for several.
    """
    arranged = {}
    for name, y in outputs.items():
        place = network.batch_axes.get(name, _FIRST)
        if place is None:
            y = y[0] if len(y) == 1 else y
        elif place.folded:
            axis = place.axis
            y = np.moveaxis(y, 0, axis)
            y = y.reshape(*y.shape[:axis], y.shape[axis] * y.shape[axis + 1], *y.shape[axis + 2 :])
        else:
            y = np.moveaxis(y, 0, place.axis)
        arranged[name] = y
    return arranged
