"""Images and labels as training wants them: raw pixels, and a validation part that the choices are made on."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from host.data import places
from host.idx import read_idx
from host.models import SHIPPED_FOLDER
from memmodels.errors import InputError


@dataclass(frozen=True)
class Part:
    """`images` uint8 [N, C, H, W] and `labels` uint8 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            found = f"{len(self.images)} images, {len(self.labels)} labels"
            raise InputError("pairing images with labels", found, "take both files from the same data set")

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Part:
        """The first `count` images; all without a number."""
        return self if count is None else Part(self.images[:count], self.labels[:count])

    def split(self, count: int) -> tuple[Part, Part]:
        """All but the last `count` images, and those."""
        cut = len(self) - count
        return Part(self.images[:cut], self.labels[:cut]), Part(self.images[cut:], self.labels[cut:])


@dataclass(frozen=True)
class Dataset:
    """A named data set: train on the first part, choose on the second, report the third once."""

    name: str
    train: Part
    validation: Part
    test: Part


def digits(folder: Path) -> Dataset:
    """The handwritten digits of `digits.npz` (host/shipped/README.md): 1147 + 200 + 450 images of 8 × 8, pixels 0..16."""
    path = folder / "digits.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            train, test = (Part(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"reading the digits from {path}", str(error), "leave --data-dir out for the shipped ones") from error
    return Dataset("digits", *train.split(200), test)


def fashion(folder: Path) -> Dataset:
    """Fashion-MNIST from its four IDX files: 50,000 + 10,000 + 10,000 images of 28 × 28, pixels 0..255."""
    train, test = (
        Part(
            read_idx(folder / f"{part}-images-idx3-ubyte.gz")[:, None],
            read_idx(folder / f"{part}-labels-idx1-ubyte.gz"),
        )
        for part in ("train", "t10k")
    )
    return Dataset("fashion-mnist", *train.split(10_000), test)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """A data set by name, looked for in the places of `host.data`."""
    if name == "digits":
        return digits(SHIPPED_FOLDER)
    for place in places(data_dir):
        for folder in (place / name, place):
            if (folder / "train-images-idx3-ubyte.gz").is_file():
                return fashion(folder)
    raise InputError(f"Data {name}", f"its files are not in {', '.join(map(str, places(data_dir)))}", "Name their folder")
