"""CIFAR-10's python batches (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html), which are pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from weakcell.host.datasets.pickles import read_plain_pickle
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_bytes, reason

_MOST_BYTES = 256 << 20
"""A published batch has 31 MB."""


def read_cifar_batch(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read a batch of CIFAR-10.

    Args:
        path: The file. Nothing that it says is run.

    Returns:
        Images (n, 3, 32, 32) and labels (n,), both uint8.

    Raises:
        InputError: It cannot be read, or it is not plain CIFAR-10.
    """
    try:
        content = read_plain_pickle(read_bytes(path, _MOST_BYTES))
        data, labels = content[b"data"], content[b"labels"]
        if not (isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == 3072):
            raise ValueError("its data are not rows of 3072 bytes")
        if isinstance(labels, np.ndarray):
            labels = labels.tolist()
        if not isinstance(labels, list) or len(labels) != len(data) or not all(type(c) is int and 0 <= c <= 9 for c in labels):
            raise ValueError("its labels are not one class from 0 to 9 per image")
    except KeyError as error:
        raise _refusal(path, f"it has no entry {error}") from error
    except (OSError, ValueError, TypeError, MemoryError) as error:
        raise _refusal(path, reason(error)) from error
    return data.reshape(-1, 3, 32, 32), np.array(labels, np.uint8)


def _refusal(path: Path, found: str) -> InputError:
    return InputError(f"Reading {path} as a CIFAR-10 batch", found, "Bring the batches of cifar-10-python.tar.gz")
