"""Published data sets in a folder: where they are searched for, the names of their files, and their readers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.host.datasets.checksums import warn_of_other_file
from weakcell.host.datasets.readers import read_cifar_batch, read_idx, read_image_folder, read_svhn
from weakcell.memmodels.errors import InputError

Array = npt.NDArray[Any]
Split = Literal["train", "test"]


def search_folders(data_dir: Path | None = None) -> tuple[Path, ...]:
    """Return the folders that are searched for data sets, in that order."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weakcell"
    given = (data_dir, os.environ.get("WEAKCELL_DATA"))
    return (*(Path(folder) for folder in given if folder), cache)


def read_split(name: str, split: Split, data_dir: Path | None = None) -> tuple[Array, Array, Path]:
    """Read one split of a published data set.

    Args:
        name: One of `NAMES`.
        split: `train` or `test`.
        data_dir: The folder to search first.

    Returns:
        Images (n, channels, height, width) and labels (n,), both uint8, and the folder that holds their files.

    Raises:
        InputError: The files are nowhere, or damaged. Files that are not the published ones get a warning.
    """
    searched: list[Path] = []
    published = _PUBLISHED[name]
    for parent in search_folders(data_dir):
        for folder in (*(parent / subfolder for subfolder in published.folders), parent):
            searched.append(folder)
            files = published.find(folder, split)
            if files:
                images, labels = published.read(files)
                for file in files:
                    warn_of_other_file(file)
                return images, labels, folder
    raise InputError(
        f"Data {name}",
        f"{published.files[split]}: not in {', '.join(map(str, searched))}",
        f"`weakcell download {name}` fetches them; or name their folder with --data-dir or $WEAKCELL_DATA",
    )


@dataclass(frozen=True)
class _Published:
    """A data set as it is published.

    Attributes:
        folders: Names that its folder may have.
        files: Names of its files by split, in words.
        find: Returns the files of a split in a folder, none if they are not there.
        read: Reads these files.
    """

    folders: tuple[str, ...]
    files: dict[Split, str]
    find: Callable[[Path, Split], list[Path]]
    read: Callable[[list[Path]], tuple[Array, Array]]


def _fashion_files(folder: Path, split: Split) -> list[Path]:
    stems = [f"{'t10k' if split == 'test' else 'train'}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    found = [_idx_file(folder, stem) for stem in stems]
    return [file for file in found if file] if all(found) else []


def _idx_file(folder: Path, stem: str) -> Path | None:
    return next((file for file in (folder / f"{stem}.gz", folder / stem) if os.path.isfile(file)), None)


def _read_fashion(files: list[Path]) -> tuple[Array, Array]:
    images, labels = (read_idx(file) for file in files)
    if images.ndim != 3:
        raise InputError(f"Data fashion-mnist, {files[0]}", f"it has shape {images.shape}", "Bring images (n, 28, 28)")
    return images[:, None], labels


def _cifar_files(folder: Path, split: Split) -> list[Path]:
    names = ["test_batch"] if split == "test" else [f"data_batch_{number}" for number in range(1, 6)]
    return [folder / name for name in names if os.path.isfile(folder / name)]


def _read_cifar(files: list[Path]) -> tuple[Array, Array]:
    images, labels = zip(*(read_cifar_batch(file) for file in files), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _svhn_files(folder: Path, split: Split) -> list[Path]:
    return [file for file in (folder / f"{split}_32x32.mat",) if os.path.isfile(file)]


def _read_svhn(files: list[Path]) -> tuple[Array, Array]:
    return read_svhn(files[0])


def _imagenette_folders(folder: Path, split: Split) -> list[Path]:
    inner = folder / ("val" if split == "test" else "train")
    return [inner] if os.path.isdir(inner) else []


def _read_imagenette(files: list[Path]) -> tuple[Array, Array]:
    return read_image_folder(files[0])


_PUBLISHED = {
    "fashion-mnist": _Published(
        ("fashion-mnist",),
        {
            "train": "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz",
            "test": "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz",
        },
        _fashion_files,
        _read_fashion,
    ),
    "cifar-10": _Published(
        ("cifar-10-batches-py", "cifar-10/cifar-10-batches-py", "cifar-10"),
        {"train": "data_batch_1 … data_batch_5 (any of them)", "test": "test_batch"},
        _cifar_files,
        _read_cifar,
    ),
    "svhn": _Published(("svhn",), {"train": "train_32x32.mat", "test": "test_32x32.mat"}, _svhn_files, _read_svhn),
    "imagenette": _Published(
        ("imagenette2-320", "imagenette2", "imagenette2-160", "imagenette/imagenette2-320", "imagenette"),
        {"train": "the folder train", "test": "the folder val"},
        _imagenette_folders,
        _read_imagenette,
    ),
}

NAMES = tuple(_PUBLISHED)
