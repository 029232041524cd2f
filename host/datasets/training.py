"""Images and labels as training wants them: raw pixels, and a validation part that the choices are made on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weakcell.host.datasets.published import read_split
from weakcell.host.study.networks import SHIPPED_FOLDER
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_arrays


@dataclass(frozen=True)
class Part:
    """`images` uint8 [N, C, H, W] and `labels` uint8 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            found = f"{len(self.images)} images, {len(self.labels)} labels"
            raise InputError("Pairing images with labels", found, "Take both files from the same data set")

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
    asked, do = f"Reading the digits from {path}", "Leave --data-dir out for the shipped ones"
    arrays = read_arrays(path, asked, do)
    if missing := [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in arrays]:
        raise InputError(asked, f"it has no array {missing[0]}", do)
    train, test = (Part(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    return Dataset("digits", *train.split(200), test)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """A data set by name, looked for in the places of `weakcell.host.datasets.registry`; a sixth of its training images, 10,000
    at most, are held back.

    They are taken from the end: of Fashion-MNIST the last 10,000 of 60,000. Image folders, which are sorted by class, are shuffled
    first, always in the same order.
    """
    if name == "digits":
        return digits(SHIPPED_FOLDER)
    images, labels, _ = read_split(name, "train", data_dir)
    train = Part(images, labels)
    if name == "imagenette":
        order = np.random.default_rng(2026).permutation(len(train))
        train = Part(train.images[order], train.labels[order])
    test = Part(*read_split(name, "test", data_dir)[:2])
    return Dataset(name, *train.split(min(10_000, len(train) // 6)), test)
