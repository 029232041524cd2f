"""The table of operators.

An operator is a function `f(inputs, attributes, opset)`. An input that the node leaves out is `None` there, and `ABSENT` in
a `FloatOperator`. An operator with several outputs is in `SEVERAL` and gets the number that is wanted. ONNX's own operators
have their ONNX name, those of Microsoft are `com.microsoft.NAME`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Inputs = Sequence["Array | None"]
Attributes = Mapping[str, Any]
Operator = Callable[[Inputs, Attributes, int], Array]
SeveralOutputs = Callable[[Inputs, Attributes, int, int], tuple[Array, ...]]

MAX_ELEMENTS = 1 << 25
"""Limit of the elements of a result that small inputs can ask for."""

ABSENT: Array = np.zeros(0, np.bool_)
"""In `FloatOperator.operands`, an optional input that the node leaves out. It is compared by identity."""

OPERATORS: dict[str, Operator] = {}
SEVERAL: dict[str, SeveralOutputs] = {}
CACHE, CACHED = ".cache", ".cached"
"""Ends of the names of the two halves of an attention whose keys and values are a cache (`attention.py`)."""
POINTWISE: set[str] = set()
"""Operators y[i] = f(x[i]). Between a DequantizeLinear and a QuantizeLinear they become a lookup table."""


def claim(shape: Sequence[int], *given: Array) -> tuple[int, ...]:
    """Return `shape` if an array of it may be allocated.

    It is small, or not much larger than `given`.

    Raises:
        ValueError: it is too large.
    """
    room = max(MAX_ELEMENTS, 2 * sum(x.size for x in given))
    if any(n < 0 for n in shape) or math.prod(int(n) for n in shape) > room:
        raise ValueError(f"a result of shape {list(shape)} has more than {room} elements")
    return tuple(int(n) for n in shape)


def register(*names: str, pointwise: bool = False) -> Callable[[Operator], Operator]:
    """Return a decorator that adds a function to OPERATORS, if asked to POINTWISE."""

    def remember(function: Operator) -> Operator:
        """Add the function under all names."""
        for name in names:
            OPERATORS[name] = function
        if pointwise:
            POINTWISE.update(names)
        return function

    return remember


def register_several(*names: str) -> Callable[[SeveralOutputs], SeveralOutputs]:
    """Return a decorator like `register` for operators with several outputs.

    OPERATORS gets the first of them.
    """

    def remember(function: SeveralOutputs) -> SeveralOutputs:
        """Add the function under all names."""

        def first(inputs: Inputs, attributes: Attributes, opset: int) -> Array:
            """Return the first output."""
            return function(inputs, attributes, opset, 1)[0]

        for name in names:
            OPERATORS[name], SEVERAL[name] = first, function
        return function

    return remember


def text(attributes: Attributes, key: str, default: str) -> str:
    """Return a string attribute, whether it is bytes or text."""
    value = attributes.get(key, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def optional(inputs: Inputs, index: int) -> Array | None:
    """Return an input that may be left out."""
    return inputs[index] if len(inputs) > index else None


def given(x: Array | None) -> Array:
    """Return an input that must be there."""
    if x is None:
        raise ValueError("an input is missing")
    return x


def ints(x: Any) -> list[int]:
    """Return numbers as a list of Python integers."""
    return [int(i) for i in np.asarray(x).reshape(-1)]
