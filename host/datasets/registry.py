"""Data sets by name, by file or as arrays: images, and labels where there are any.

The files of a named data set are searched for in `data_dir`, then in $WEAKCELL_DATA, then in the user's cache (~/.cache/weakcell,
or below $XDG_CACHE_HOME). In each place they may lie directly or in a folder of the data set's name. They are the published files
(`weakcell.host.datasets.published`). Images are raw pixels, 0 to 255 (digits: 0 to 16), as networks from `weakcell train` expect.

The `x` of an .npz or of a caller reaches the network exactly as stored. `weakcell.host.datasets.input_range` compares it with the
network's first quantizer.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from weakcell.emulator.tasks.checks import are_integers
from weakcell.host.datasets.published import NAMES, read_split
from weakcell.host.study.networks import SHIPPED_FOLDER
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_arrays
from weakcell.memmodels.printable import printable_name

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_NAMES = ("digits", *NAMES)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, and labels if there are any.

    Attributes:
        name: What results call it.
        x: Images (n, …) exactly as the network gets them; raw pixels for shipped networks.
        y: Labels (n, …): class numbers, maps of classes, or values; None if there are none. The task gives them their meaning.
        source: Where they came from, in words.
        inputs: Arrays by input name, for a network with several inputs; `x` is the first of them.
    """

    name: str
    x: Array
    y: Array | None
    source: str
    inputs: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.x.ndim < (1 if self.inputs else 2) or len(self.x) == 0:
            raise InputError(f"Data {self.name}", f"x has shape {self.x.shape}", "Bring images, the first axis counting them")
        if self.y is not None and (self.y.ndim == 0 or len(self.y) != len(self.x)):
            found = f"{len(self.x)} images but labels of shape {self.y.shape}"
            raise InputError(f"Data {self.name}", found, "Bring labels whose first axis counts the images")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Dataset<{self.name}: {len(self)} x {list(self.x.shape[1:])}{'' if self.y is not None else ', no labels'}>"

    def first(self, images: int | None) -> Dataset:
        """Return the first `images` images; all of them for None."""
        if images is None or images >= len(self):
            return self
        inputs = {name: array[:images] if array.shape[:1] == (len(self),) else array for name, array in self.inputs.items()}
        return Dataset(self.name, self.x[:images], None if self.y is None else self.y[:images], self.source, inputs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all arrays but the labels, by name; `x` if there are no others."""
        return {name: array.shape for name, array in self.inputs.items()} if self.inputs else {"x": self.x.shape}

    def select(self, names: Sequence[str]) -> Dataset:
        """Return only the arrays that a network reads. InputError if one is missing.

        Args:
            names: The network's inputs. A sole input may be called `x` in the data.
        """
        used = names if any(name in self.inputs for name in names) else ("x",)
        unused = [name for name in self.inputs if name not in used]
        if unused and self.y is None:
            named = ", ".join(map(printable_name, unused))
            log.warning("%s: %s not used, and there are no labels; an array of labels is called y", self.name, named)
        if len(names) == 1 and names[0] not in self.inputs and ("x" in self.inputs or not self.inputs):
            return self if not self.inputs else replace(self, x=self.inputs["x"], inputs={})
        if any(name not in self.inputs for name in names):
            found = f"they have {', '.join(map(printable_name, self.inputs)) or 'x'}, and the network reads {', '.join(names)}"
            do = "Name the images x and the labels y" if len(names) == 1 else "Name an array for each input, and the labels y"
            raise InputError(f"Data {self.name}", found, do)
        arrays = {name: _checked(self.name, name, self.inputs[name]) for name in names}
        first = next((array for array in arrays.values() if self.y is None or array.shape[:1] == (len(self.y),)), self.x)
        return replace(self, x=first, inputs=arrays if len(names) > 1 else {})

    @property
    def sha256(self) -> str:
        """Digest of the arrays' shapes, types and bytes. Labels that are one whole number per image count as int64."""
        digest = hashlib.sha256()
        y = self.y
        if y is not None and y.ndim == 1 and are_integers(y):
            y = y.astype(np.int64)
        named = [self.inputs[name] for name in sorted(self.inputs)]
        for array in (*(named or [self.x]), y):
            if array is not None:
                digest.update(f"{array.shape} {array.dtype.str}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


DataLike: TypeAlias = "str | PathLike[str] | Array | tuple[Any, Any] | Mapping[str, Any] | Dataset"
"""What a caller may pass as data."""


def dataset_names() -> tuple[str, ...]:
    """Return the names of all data sets."""
    return _NAMES


def load_data(data: DataLike, data_dir: str | Path | None = None) -> Dataset:
    """Load images, and labels if there are any.

    Args:
        data: A data set's name (`digits`, `fashion-mnist`, `cifar-10`, `svhn`, `imagenette`), an `.npz` file with the array `x` and
            optionally `y`, an array of images (n, …), a tuple `(x, y)` of images and labels, a dict with `x` and optionally `y`,
            or a `Dataset`. For a network with several inputs, file or dict hold an array for each, under its name.
        data_dir: The folder to search first for a data set's files.

    Returns:
        The images exactly as the network gets them, and their labels.

    Raises:
        InputError: The data set or file is missing, or its arrays do not fit together.

    Examples:
        >>> import weakcell
        >>> weakcell.load_data("digits")
        Dataset<digits: 450 x [1, 8, 8]>
        >>> import numpy as np
        >>> weakcell.load_data((np.zeros((2, 1, 8, 8)), [3, 7]))
        Dataset<arrays: 2 x [1, 8, 8]>
    """
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, str | PathLike):
        arrays = {name: _as_array(array) for name, array in _named(data).items()}
        return _from_arrays("arrays", "arrays in memory", arrays)
    text = str(data)
    if text == "digits":
        arrays = read_npz(SHIPPED_FOLDER / "digits.npz")
        return Dataset("digits", arrays["x_test"], arrays["y_test"].astype(np.int64), "shipped: scikit-learn digits, test split")
    if text in NAMES:
        images, labels, folder = read_split(text, "test", None if data_dir is None else Path(data_dir))
        return Dataset(text, images, labels.astype(np.int64), f"{folder}: test set")
    path = Path(data)
    if path.suffix.lower() == ".npz" or os.path.exists(path):
        return _from_npz(path)
    near = difflib.get_close_matches(text, _NAMES, n=1)
    hint = f"Perhaps {near[0]} is meant" if near else f"Name an .npz file with x and optionally y, or one of {', '.join(_NAMES)}"
    raise InputError(f"Data {text}", "it is neither a data set's name nor a file", hint)


def _named(data: Array | tuple[Any, Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by name. InputError if a tuple has other parts than images and labels."""
    if isinstance(data, Mapping):
        return {str(name): array for name, array in data.items() if array is not None}
    if not isinstance(data, tuple):
        return {"x": data}
    if len(data) != 2:
        raise InputError("Data as a tuple", f"it has {len(data)} parts", "Give (x, y): images and labels")
    return {"x": data[0], **({} if data[1] is None else {"y": data[1]})}


def _as_array(values: Any) -> Array:
    """Return values as an array. InputError if their parts have different shapes."""
    try:
        return np.asarray(values)
    except ValueError:
        found = f"a list of {len(values)} parts of different shapes"
        raise InputError("Data arrays", found, "Give an array of images, or a tuple (x, y) of images and labels") from None


def read_npz(path: Path) -> dict[str, Array]:
    """Read the arrays of an .npz file. InputError if it cannot be read or holds a pickle."""
    return read_arrays(path, f"Reading {path}", "Bring an .npz file of plain arrays, as numpy.savez writes it")


def _from_npz(path: Path) -> Dataset:
    name, source = printable_name(path.stem), printable_name(path.name)
    return replace(_from_arrays(str(path), source, read_npz(path)), name=name)


def _from_arrays(name: str, source: str, arrays: Mapping[str, Array]) -> Dataset:
    """Check arrays that a user brings. InputError if there are no images, or a value is not a finite number."""
    y = _checked(name, "y", arrays["y"]) if "y" in arrays else None
    inputs = {key: array for key, array in arrays.items() if key != "y"}
    if not inputs:
        found = f"it has {', '.join(map(printable_name, arrays)) or 'no arrays'}"
        raise InputError(f"Data {name}", found, "Name the images x and the labels y")
    first = "x" if "x" in inputs else next(iter(inputs))
    return Dataset(name, _checked(name, first, inputs[first]), y, source, {} if list(inputs) == ["x"] else inputs)


def _checked(data: str, name: str, array: Array) -> Array:
    """Return an array of finite numbers. InputError for any other."""
    if array.dtype.kind not in "buif":
        raise InputError(f"Data {data}", f"{name} has type {array.dtype}, which is no number", "Bring finite numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"Data {data}", f"{name} has values that are not finite", "Bring finite numbers")
    return array
