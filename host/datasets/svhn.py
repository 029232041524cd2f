"""Street View House Numbers, cropped digits (Netzer et al., 2011, http://ufldl.stanford.edu/housenumbers): MATLAB files.

The files are MATLAB's format of level 5 (MathWorks, "MAT-File Format"): elements of a type, a size and that many bytes. Each matrix
is compressed. Only real numeric matrices are read, which is all that SVHN needs; a general parser can crash on a forged file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import read_bytes, reason

_Order = Literal["<", ">"]
_MOST_BYTES = 4 << 30
_MOST_COMPRESSION = 60
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of elements, as NumPy calls them."""

_CLASSES = range(6, 16)
"""Classes of matrices that hold numbers: double, single and the integers."""


def read_svhn(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read the images and labels of an SVHN file.

    Args:
        path: `train_32x32.mat`, `test_32x32.mat` or a file like them.

    Returns:
        Images (n, 3, 32, 32) and labels (n,), both uint8. The file's class 10 is the digit 0.

    Raises:
        InputError: It cannot be read, or it is something else.
    """
    try:
        matrices = _matrices(read_bytes(path, _MOST_BYTES))
        images, labels = matrices["X"], matrices["y"].reshape(-1)
        if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.shape[3:] != labels.shape:
            raise ValueError(f"X is {images.dtype} of shape {images.shape} and y has shape {labels.shape}")
        if not labels.size or labels.min() < 1 or labels.max() > 10 or np.any(labels != np.rint(labels)):
            raise ValueError("its classes are not 1 to 10")
    except KeyError as error:
        raise _refusal(path, f"it has no matrix {error}") from error
    except (OSError, ValueError, struct.error, zlib.error, MemoryError) as error:
        raise _refusal(path, reason(error)) from error
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), (labels.astype(np.int64) % 10).astype(np.uint8)


def _refusal(path: Path, found: str) -> InputError:
    return InputError(f"Reading {path} as an SVHN file", found, "Bring train_32x32.mat or test_32x32.mat")


def _matrices(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the numeric matrices of a MAT file by name."""
    order: _Order | None = {b"IM": "<", b"MI": ">"}.get(content[126:128])  # type: ignore[assignment]
    if order is None or len(content) < _HEADER:
        raise ValueError("it is not a MATLAB file of level 5")
    found: dict[str, npt.NDArray[Any]] = {}
    for kind, data in _elements(memoryview(content)[_HEADER:], order, padded=False):
        if kind == _COMPRESSED:
            most = max(1 << 20, _MOST_COMPRESSION * len(data))
            unpacking = zlib.decompressobj()
            unpacked = unpacking.decompress(data, most)
            if unpacking.unconsumed_tail:
                raise ValueError(f"a matrix of {len(data):,} bytes unpacks to more than {most:,}")
            ((kind, data),) = _elements(memoryview(unpacked), order)
        if kind == _MATRIX:
            name, matrix = _matrix(data, order)
            if matrix is not None:
                found[name] = matrix
    return found


def _elements(data: memoryview, order: _Order, padded: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Yield (type, bytes) of the elements that follow each other; small ones hold their bytes in the tag."""
    while len(data):
        kind, size = struct.unpack_from(f"{order}II", data)
        if kind >> 16:
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, 4, 8
            if size > 4:
                raise ValueError(f"a small element states {size} bytes")
        else:
            begin, end = 8, 8 + (-(-size // 8) * 8 if padded else size)
        if begin + size > len(data):
            raise ValueError(f"an element states {size:,} bytes and {len(data) - begin:,} follow")
        yield kind, data[begin : begin + size]
        data = data[end:]


def _matrix(data: memoryview, order: _Order) -> tuple[str, npt.NDArray[Any] | None]:
    """Return name and values of a matrix: elements for its class, its dimensions, its name and its values."""
    parts = list(_elements(data, order))
    if len(parts) < 4:
        raise ValueError(f"a matrix has {len(parts)} parts, not four")
    (_, flags), (_, dimensions), (_, name), (kind, values) = parts[:4]
    (stated,) = struct.unpack_from(f"{order}I", flags)
    called = bytes(name).decode("ascii", "replace")
    if stated & 0xFF not in _CLASSES or stated & 0x800:  # cells, structures, text; complex numbers
        return called, None
    if kind not in _NUMBERS:
        raise ValueError(f"the matrix {called!r} has elements of type {kind}")
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    if any(length < 0 for length in shape):
        raise ValueError(f"the matrix {called!r} states the shape {shape}")
    matrix: npt.NDArray[Any] = np.frombuffer(values, np.dtype(_NUMBERS[kind]).newbyteorder(order)).reshape(shape, order="F")
    return called, matrix
