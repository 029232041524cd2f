"""Data for training: raw pixels in three parts, to train on, to choose by, and to report once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weakcell.host.datasets.published import read_split
from weakcell.host.study.networks import SHIPPED_FOLDER
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_arrays

_MOST_VALIDATION = 10_000
_SHUFFLE_SEED = 2026


@dataclass(frozen=True)
class LabelledImages:
    """Images and their classes.

    Attributes:
        images: uint8 (n, channels, height, width).
        labels: uint8 (n,).
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            found = f"{len(self.images)} images, {len(self.labels)} labels"
            raise InputError("Pairing images with labels", found, "Take both files from the same data set")

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> LabelledImages:
        """Return the first `count` images; all of them for None."""
        return self if count is None else LabelledImages(self.images[:count], self.labels[:count])

    def split(self, count: int) -> tuple[LabelledImages, LabelledImages]:
        """Return all but the last `count` images, and the last `count`."""
        cut = len(self) - count
        return LabelledImages(self.images[:cut], self.labels[:cut]), LabelledImages(self.images[cut:], self.labels[cut:])


@dataclass(frozen=True)
class TrainingData:
    """A data set in three parts.

    Attributes:
        name: Its name.
        train: Images to train on.
        validation: Images that settings are chosen by.
        test: Images for the final figures.
    """

    name: str
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def load_training_digits(folder: Path) -> TrainingData:
    """Read the handwritten digits of `digits.npz`: 1147 + 200 + 450 images of 8 x 8, pixels 0 to 16.

    Raises:
        InputError: The file is missing or lacks an array.
    """
    path = folder / "digits.npz"
    asked, do = f"Reading the digits from {path}", "Leave --data-dir out for the shipped ones"
    arrays = read_arrays(path, asked, do)
    if missing := [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in arrays]:
        raise InputError(asked, f"it has no array {missing[0]}", do)
    train, test = (LabelledImages(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    return TrainingData("digits", *train.split(200), test)


def load_training_data(name: str, data_dir: Path | None = None) -> TrainingData:
    """Load a data set for training.

    The last sixth of its training images, at most 10,000, are the validation part: of Fashion-MNIST the last 10,000 of 60,000.
    Image folders are sorted by class, so they are shuffled first, always in the same order.

    Args:
        name: `digits`, `fashion-mnist`, `cifar-10`, `svhn` or `imagenette`.
        data_dir: The folder to search first for its files, as in `weakcell.host.datasets.registry`.

    Raises:
        InputError: Its files are missing or damaged.
    """
    if name == "digits":
        return load_training_digits(SHIPPED_FOLDER)
    train = LabelledImages(*read_split(name, "train", data_dir)[:2])
    if name == "imagenette":
        order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(train))
        train = LabelledImages(train.images[order], train.labels[order])
    test = LabelledImages(*read_split(name, "test", data_dir)[:2])
    return TrainingData(name, *train.split(min(_MOST_VALIDATION, len(train) // 6)), test)
