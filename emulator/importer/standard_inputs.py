"""Inputs of language models that the data may leave out, because they follow from the tokens.

    attention_mask              1 everywhere: no token is padding
    token_type_ids              0 everywhere: one sentence
    position_ids                0, 1, 2, …
    past_key_values.…, past_…   empty: nothing was read before

The names are those of Hugging Face's exporters and of onnxruntime-genai. They are only filled in if the data bring `input_ids`
and none of the caches.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.ir.network import Network
from weakcell.memmodels.printable import printable_name

if TYPE_CHECKING:
    from weakcell.emulator.importer.parse import Port

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

TOKENS = "input_ids"
"""The input that holds the tokens."""

_CACHE = re.compile(r"past(_key_values|_key|_value|_\d+)?(\W.*|_.*|\d.*)?", re.IGNORECASE)


def _counted(shape: Shape, dtype: str) -> Array:
    return np.broadcast_to(np.arange(shape[-1], dtype=dtype), shape)


_FILLED: dict[str, tuple[str, Callable[[Shape, str], Array]]] = {
    "attention_mask": ("1 everywhere", np.ones),
    "token_type_ids": ("0 everywhere", np.zeros),
    "position_ids": ("0, 1, 2, …", _counted),
}


def _is_cache(name: str, rank: int) -> bool:
    """Return whether an input is a cache of keys or values, [batch, heads, tokens, size]."""
    return rank == 4 and _CACHE.fullmatch(name) is not None


def add_missing_shapes(inputs: Sequence[Port], like: Mapping[str, Shape] | None) -> dict[str, Shape] | None:
    """Return shapes of data, and those of the inputs that the data leave out and that follow from the tokens.

    Args:
        inputs: of the graph.
        like: shapes of data, by input.
    """
    if like is None or len(like.get(TOKENS, ())) != 2:
        return None if like is None else dict(like)
    tokens, added = like[TOKENS], dict(like)
    caches = [port for port in inputs if _is_cache(port.name, len(port.dims or ()))]
    if any(port.name in like for port in caches):
        return added
    for port in inputs:
        if port.name in _FILLED and len(port.dims or ()) == 2:
            added.setdefault(port.name, tokens)
    for port in caches:
        dims = port.dims or ()
        if dims[2] is None:  # the size of an entry is irrelevant where there is none
            added[port.name] = (tokens[0], dims[1] or 1, 0, dims[3] or 1)
    return added


def add_missing_inputs(network: Network, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays and those that they leave out and that follow from the tokens; log a note that names these.

    Args:
        network: imported with the shapes of `add_missing_shapes`.
        arrays: (n, *shape) by input name.
    """
    missing = [name for name in network.inputs if name not in arrays]
    if TOKENS not in arrays or not missing or np.ndim(arrays[TOKENS]) != 2:
        return dict(arrays)
    if any(_is_cache(name, np.ndim(array)) for name, array in arrays.items()):
        return dict(arrays)  # positions and mask then depend on what was read before
    complete, notes = dict(arrays), []
    for name in missing:
        spec = network.values[name]
        shape = (len(arrays[TOKENS]), *spec.shape)
        if name in _FILLED and spec.shape == np.shape(arrays[TOKENS])[1:]:
            words, fill = _FILLED[name]
            complete[name] = fill(shape, spec.dtype)
            notes.append(f"{name} = {words}")
        elif _is_cache(name, len(shape)) and 0 in shape:
            complete[name] = np.zeros(shape, spec.dtype)
    if len(complete) > len(arrays) + len(notes):
        notes.append("empty caches")
    if notes:
        log.warning("The data leave out inputs of %s, which are filled in: %s.", printable_name(network.name), ", ".join(notes))
    return complete
