"""Labels against classes: what does not fit is refused with both ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.errors import InputError

Array = npt.NDArray[Any]


def squeezed(x: Array) -> Array:
    """The same without axes of size 1, except the first one, which counts the images."""
    return x.reshape(len(x), *(n for n in x.shape[1:] if n != 1)) if x.ndim else x


def are_integers(x: Array) -> bool:
    """Whether all labels are whole numbers that int64 holds, whatever their type."""
    if x.dtype.kind in "bi":
        return True
    if x.dtype.kind == "u":
        return not x.size or int(x.max()) < 1 << 63
    return x.dtype.kind == "f" and bool((np.abs(x) < 2.0**63).all()) and bool((x == np.rint(x)).all())


def shape_text(x: Array) -> str:
    """(n, …) as people read it."""
    return f"({', '.join(map(str, x.shape))}{',' if x.ndim == 1 else ''})"


def range_text(x: Array) -> str:
    """The lowest and highest label."""
    low, high = x.min(), x.max()
    return f"{low:g} … {high:g}" if x.dtype.kind == "f" else f"{int(low)} … {int(high)}"


def check_counts(given: Array, images: int, output: str, positions: tuple[int, ...], noun: str) -> Array:
    """The labels without axes of size 1; InputError unless there is one for every answer."""
    kept, wanted = squeezed(np.asarray(given)), (images, *(n for n in positions if n != 1))
    if kept.shape != wanted:
        each = "one per image" if not positions else f"one per {noun}: ({', '.join(map(str, wanted))})"
        raise InputError(
            f"Labels of shape {shape_text(np.asarray(given))}",
            f"there are {images} images, and the output {output!r} takes {each}",
            "Bring labels of that shape, or choose another task or output with --task and --output",
        )
    return kept


def class_numbers(given: Array, classes: int | None, output: str, ignore: int | None = None) -> npt.NDArray[np.int64]:
    """Labels as class numbers; InputError with both ranges where they do not fit the classes.

    Args:
        given: labels of any type and shape.
        classes: how many classes the output has; None if that is not known.
        output: its name.
        ignore: a label that stands for "not judged" and fits always.
    """
    if not are_integers(given):
        odd = given[~np.isfinite(given) | (given != np.rint(given))] if given.dtype.kind == "f" else given.reshape(-1)
        found = f"they hold {odd.reshape(-1)[0]}, which is no class number"
        raise InputError(f"Labels of the output {output!r}", found, "Bring whole numbers from 0, or --task values for a regression")
    held = given[given != ignore] if ignore is not None else given
    if not held.size:
        raise InputError(f"Labels of the output {output!r}", "none is left to judge", "Bring labels, or leave y out of the data")
    low, high = int(held.min()), int(held.max())
    if low < 0 or high >= (1 << 62 if classes is None else classes):
        known = "classes count from 0" if classes is None else f"the output {output!r} has {classes} classes, 0 … {classes - 1}"
        raise InputError(f"Labels {low} … {high}", known, _hint(held, low, high, classes))
    return given.astype(np.int64)


def _hint(held: Array, low: int, high: int, classes: int | None) -> str:
    """What is probably wrong with labels that do not fit."""
    if classes is not None and low == 1 and high == classes:
        return "They look counted from 1: subtract 1 from every label"
    if classes == 2 and low == -1 and high == 1 and not (held == 0).any():
        return "They look like signs: write 0 for -1"
    special = next((one for one in (255, -100, -1) if (held == one).any()), None)
    if special is not None:
        rest = held[held != special]
        if rest.size and rest.min() >= 0 and (classes is None or rest.max() < classes):
            return (
                f"If {special} means that there is no label, take it out, or for maps and tokens give --task NAME:ignore={special}"
            )
    return "Bring the labels that belong to this network, or choose another output with --output"
