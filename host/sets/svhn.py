"""Street View House Numbers, cropped digits (Netzer et al., 2011, http://ufldl.stanford.edu/housenumbers): MATLAB files."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memmodels.errors import InputError


def read_svhn(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (n, 3, 32, 32) and labels (n,) of a `.mat` file, both uint8; the file's class 10 is the digit 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, variable_names=["X", "y"])
        images, labels = content["X"], content["y"].reshape(-1)
        if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.shape[3:] != labels.shape:
            raise ValueError(f"X has shape {images.shape} and y {labels.shape}")
        if labels.min() < 1 or labels.max() > 10:
            raise ValueError("its classes are not 1 to 10")
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, IndexError, MatReadError, zlib.error) as error:
        found = getattr(error, "strerror", None) or (str(error).splitlines() or ["it cannot be read"])[0]
        raise InputError(f"Reading {path} as an SVHN file", found, "Bring train_32x32.mat or test_32x32.mat") from error
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), (labels % 10).astype(np.uint8)
