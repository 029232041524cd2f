"""Data sets by name or file: images, and labels where there are any.

A name is looked for in `--data-dir`, then in $WEAKCELL_DATA, then in the user's cache (~/.cache/weakcell, or below
$XDG_CACHE_HOME). In each place the files may lie directly or in a folder of the data set's name. They are the files as published
(`weakcell.host.datasets`), and images are raw pixels, 0 to 255 (digits: 0 to 16): what networks trained by `weakcell train` want.
The `x`
of an .npz is handed to the network exactly as stored (`weakcell.host.datasets.input_range` compares it with the network's first
quantizer).
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weakcell.emulator.tasks.checks import are_integers
from weakcell.host.datasets.published import NAMES, read_split
from weakcell.host.study.networks import SHIPPED_FOLDER
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_arrays

Array = npt.NDArray[Any]

_NAMES = ("digits", *NAMES)


@dataclass(frozen=True, eq=False)
class Dataset:
    """`x` (n, …) as the network wants it (raw pixels for shipped networks), labels `y` (n, …) or None, and `source`.

    Labels are class numbers, maps of them, or numbers of any kind: what they mean is for the task to say
    (`weakcell.emulator.tasks`).
    """

    name: str
    x: Array
    y: Array | None
    source: str

    def __post_init__(self) -> None:
        if self.x.ndim < 2 or len(self.x) == 0:
            raise InputError(f"Data {self.name}", f"x has shape {self.x.shape}", "Bring images, the first axis counting them")
        if self.y is not None and (self.y.ndim == 0 or len(self.y) != len(self.x)):
            found = f"{len(self.x)} images but labels of shape {self.y.shape}"
            raise InputError(f"Data {self.name}", found, "Bring labels whose first axis counts the images")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Dataset<{self.name}: {len(self)} x {list(self.x.shape[1:])}{'' if self.y is not None else ', no labels'}>"

    def first(self, images: int | None) -> Dataset:
        """The first `images` of them; all if None or if there are fewer."""
        if images is None or images >= len(self):
            return self
        return Dataset(self.name, self.x[:images], None if self.y is None else self.y[:images], self.source)

    @property
    def sha256(self) -> str:
        """Of the arrays: shapes, types and bytes, whatever file they came from. One whole number per image counts as int64."""
        digest = hashlib.sha256()
        y = self.y
        if y is not None and y.ndim == 1 and are_integers(y):
            y = y.astype(np.int64)
        for array in (self.x, y):
            if array is not None:
                digest.update(f"{array.shape} {array.dtype.str}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def load_data(name_or_path: str | Path, data_dir: Path | None = None) -> Dataset:
    """The data set of that name, or the `.npz` at that path; InputError says where it was looked for."""
    text = str(name_or_path)
    if text == "digits":
        arrays = read_npz(SHIPPED_FOLDER / "digits.npz")
        return Dataset("digits", arrays["x_test"], arrays["y_test"].astype(np.int64), "shipped: scikit-learn digits, test split")
    if text in NAMES:
        images, labels, folder = read_split(text, "test", data_dir)
        return Dataset(text, images, labels.astype(np.int64), f"{folder}: test set")
    path = Path(name_or_path)
    if path.suffix.lower() == ".npz" or path.exists():
        return _from_npz(path)
    near = difflib.get_close_matches(text, _NAMES, n=1)
    hint = f"Perhaps {near[0]} is meant" if near else f"Name an .npz file with x and optionally y, or one of {', '.join(_NAMES)}"
    raise InputError(f"Data {text}", "it is neither a data set's name nor a file", hint)


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file, pickles refused; InputError if it cannot be read."""
    return read_arrays(path, f"Reading {path}", "Bring an .npz file of plain arrays, as numpy.savez writes it")


def _from_npz(path: Path) -> Dataset:
    arrays = read_npz(path)
    if "x" not in arrays:
        raise InputError(f"Data {path}", f"it has {', '.join(arrays) or 'no arrays'}", "Name the images x and the labels y")
    x, y = arrays["x"], arrays.get("y")
    if x.dtype.kind not in "buif" or (x.dtype.kind == "f" and not np.isfinite(x).all()):
        raise InputError(f"Data {path}", f"x has type {x.dtype} or values that are not finite", "Bring finite numbers")
    if y is not None and (y.dtype.kind not in "buif" or (y.dtype.kind == "f" and not np.isfinite(y).all())):
        raise InputError(f"Data {path}", f"y has type {y.dtype} or values that are not finite", "Bring finite numbers")
    return Dataset(path.stem, x, y, path.name)
