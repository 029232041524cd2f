"""CIFAR-10's python batches (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html), which are pickles.

Unpickling runs what a file says. Here a file may say nothing but: make an array of bytes, a list, a dictionary, a string.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memmodels.errors import InputError


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows no callable but those by which numpy rebuilds an array."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _array
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _array(kind: type, shape: tuple[int, ...], code: bytes) -> npt.NDArray[Any]:
    """The empty array that a pickled array starts as; its bytes follow."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("it asks for an array of another kind")
    return np.ndarray((0,), np.uint8)


def read_cifar_batch(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (n, 3, 32, 32) and labels (n,) of a batch, both uint8; InputError for anything that is not plain CIFAR-10."""
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        data, labels = content[b"data"], content[b"labels"]
        if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072):
            raise ValueError("its data are not rows of 3072 bytes")
        classes = np.asarray(labels)
        if classes.shape != (len(data),) or classes.dtype.kind not in "ui" or classes.min() < 0 or classes.max() > 9:
            raise ValueError("its labels are not one class from 0 to 9 per image")
    except (OSError, pickle.UnpicklingError, ValueError, KeyError, TypeError, EOFError, AttributeError, IndexError) as error:
        found = getattr(error, "strerror", None) or (str(error).splitlines() or ["it cannot be read"])[0]
        raise InputError(f"Reading {path} as a CIFAR-10 batch", found, "Bring the batches of cifar-10-python.tar.gz") from error
    return data.reshape(-1, 3, 32, 32), classes.astype(np.uint8)
