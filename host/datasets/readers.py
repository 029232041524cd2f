"""Readers of the files that data sets are published in. Nothing that a file says is run.

IDX: MNIST and its relatives (http://yann.lecun.com/exdb/mnist). Pickled batches: CIFAR-10 (Krizhevsky, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html). MATLAB files of level 5 (MathWorks, "MAT-File Format"): SVHN (Netzer et al., 2011,
http://ufldl.stanford.edu/housenumbers). Image folders: Imagenette (https://github.com/fastai/imagenette).
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakcell.host.datasets.pickles import read_plain_pickle
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.files import COMPRESSION, SMALL_BYTES, allowed, open_regular, read_bytes, reason


def read_idx(path: str | Path) -> np.ndarray:
    """Read a file of unsigned bytes in IDX format, plain or gzip.

    Args:
        path: The file.

    Returns:
        uint8, in the shape that the file's header states.

    Raises:
        InputError: It cannot be read, or it is something else.
    """

    def refusal(found: str) -> InputError:
        return InputError(f"Reading {path} as an IDX file", found, "Name a file of unsigned bytes in IDX format, plain or gzip")

    try:
        with open_regular(Path(path)) as raw:
            most = allowed(max(SMALL_BYTES, COMPRESSION * os.fstat(raw.fileno()).st_size))
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            head = file.read(4)
            lengths = file.read(4 * head[3]) if len(head) == 4 else b""
            if len(head) != 4 or head[:3] != b"\0\0\x08" or len(lengths) != 4 * head[3]:
                raise refusal(f"it starts with the bytes {head.hex(' ') or '(none)'}")
            shape = struct.unpack(f">{head[3]}I", lengths)
            size = math.prod(shape)
            if size > most:  # before the bytes are allocated
                raise refusal(f"its header states {size:,} bytes, and {most:,} are the most that are read")
            content = np.empty(size, np.uint8)
            filled = file.readinto(content)
            if filled != size or file.read(1):
                raise refusal(f"its header states the shape {shape}, but {'more' if filled == size else filled} bytes follow")
            return content.reshape(shape)
    except (OSError, EOFError, ValueError, MemoryError, zlib.error) as error:
        raise refusal(reason(error)) from error


_MOST_CIFAR_BYTES = 256 << 20
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
        content = read_plain_pickle(read_bytes(path, _MOST_CIFAR_BYTES))
        data, labels = content[b"data"], content[b"labels"]
        if not (isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == 3072):
            raise ValueError("its data are not rows of 3072 bytes")
        if isinstance(labels, np.ndarray):
            labels = labels.tolist()
        if not isinstance(labels, list) or len(labels) != len(data) or not all(type(c) is int and 0 <= c <= 9 for c in labels):
            raise ValueError("its labels are not one class from 0 to 9 per image")
    except KeyError as error:
        raise _cifar_refusal(path, f"it has no entry {error}") from error
    except (OSError, ValueError, TypeError, MemoryError) as error:
        raise _cifar_refusal(path, reason(error)) from error
    return data.reshape(-1, 3, 32, 32), np.array(labels, np.uint8)


def _cifar_refusal(path: Path, found: str) -> InputError:
    return InputError(f"Reading {path} as a CIFAR-10 batch", found, "Bring the batches of cifar-10-python.tar.gz")


_Order = Literal["<", ">"]
_MOST_SVHN_BYTES = 4 << 30
_MOST_COMPRESSION = 20
_MOST_MATRICES = 1000
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
# A general parser can crash on a forged file: only compressed, real, numeric matrices are read, which is all that SVHN needs.
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
        matrices = _matrices(read_bytes(path, _MOST_SVHN_BYTES))
        images, labels = matrices["X"], matrices["y"].reshape(-1)
        if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.shape[3:] != labels.shape:
            raise ValueError(f"X is {images.dtype} of shape {images.shape} and y has shape {labels.shape}")
        if not labels.size or labels.min() < 1 or labels.max() > 10 or np.any(labels != np.rint(labels)):
            raise ValueError("its classes are not 1 to 10")
    except KeyError as error:
        raise _svhn_refusal(path, f"it has no matrix {error}") from error
    except (OSError, ValueError, struct.error, zlib.error, MemoryError) as error:
        raise _svhn_refusal(path, reason(error)) from error
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), (labels.astype(np.int64) % 10).astype(np.uint8)


def _svhn_refusal(path: Path, found: str) -> InputError:
    return InputError(f"Reading {path} as an SVHN file", found, "Bring train_32x32.mat or test_32x32.mat")


def _matrices(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the numeric matrices of a MAT file by name."""
    order: _Order | None = {b"IM": "<", b"MI": ">"}.get(content[126:128])  # type: ignore[assignment]
    if order is None or len(content) < _HEADER:
        raise ValueError("it is not a MATLAB file of level 5")
    found: dict[str, npt.NDArray[Any]] = {}
    for kind, data in islice(_elements(memoryview(content)[_HEADER:], order, padded=False), _MOST_MATRICES):
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
    parts = list(islice(_elements(data, order), 4))
    if len(parts) < 4:
        raise ValueError(f"a matrix has {len(parts)} parts, not four")
    (_, flags), (_, dimensions), (_, name), (kind, values) = parts
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


_MOST_PIXELS = 1 << 26
"""Limit of an image, and of its scaled form. The largest of Imagenette have 2^25."""

_SUFFIXES = {".jpeg", ".jpg", ".png"}


def read_image_folder(path: Path, size: int = 224) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read image folders: one subfolder of JPEG or PNG files per class, in alphabetical order.

    Each image is scaled so that its shorter side is `size` (bilinear, with antialiasing) and cropped around its middle.

    Args:
        path: The folder.
        size: Height and width of the images, pixels.

    Returns:
        Images (n, 3, size, size) and labels (n,), both uint8.

    Raises:
        InputError: There are no images, more than 256 classes, or a damaged image.
    """
    from PIL import UnidentifiedImageError

    classes = sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
    files = [
        (file, number)
        for number, folder in enumerate(classes)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _SUFFIXES
    ]
    if not files or len(classes) > 256:
        found = f"it has {len(classes)} subfolders and {len(files)} images"
        raise InputError(f"Reading {path} as an image folder", found, "Bring one subfolder per class, of JPEG or PNG files")
    images = np.empty((len(files), 3, size, size), np.uint8)
    for index, (file, _) in enumerate(files):
        try:
            images[index] = _read_image(file, size).transpose(2, 0, 1)
        except UnidentifiedImageError as error:
            raise InputError(f"Reading {file}", "it is no JPEG or PNG image", "Remove or replace that image") from error
        except Exception as error:  # Pillow raises errors of many types at damaged images, and warns of large ones
            raise InputError(f"Reading {file}", reason(error), "Remove or replace that image") from error
    return images, np.array([number for _, number in files], np.uint8)


def _read_image(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """Return an image, scaled and cropped to a square of `size` pixels; ValueError if it has too many pixels."""
    from PIL import Image

    with open_regular(path) as file, Image.open(file, formats=("JPEG", "PNG")) as image:
        width, height = image.size
        if width * height > _MOST_PIXELS:
            raise ValueError(f"it has {width} x {height} pixels, and {_MOST_PIXELS:,} are the most that are read")
        return _crop_middle(image.convert("RGB"), size)


def _crop_middle(image, size: int) -> npt.NDArray[np.uint8]:  # type: ignore[no-untyped-def]
    from PIL import Image

    width, height = image.size
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    if wide * high > _MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, which is too narrow to be cropped to a square")
    scaled = image if (wide, high) == image.size else image.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return np.asarray(scaled.crop((left, top, left + size, top + size)), dtype=np.uint8)
