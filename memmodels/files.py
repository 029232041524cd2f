"""Read files of unknown origin: regular files only, of bounded size, each array checked before it is allocated.

A pipe would block, `/dev/zero` never ends, and a compressed file of a few kilobytes can unpack to gigabytes. These functions refuse
such files with `InputError` before they use much time or memory.
"""

from __future__ import annotations

import json
import lzma
import os
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.numbers import parse_number

TEXT_BYTES = 64 << 20
"""Largest text file (TOML, JSON) that is read."""

SMALL_BYTES = 256 << 20
"""Total size of arrays that are unpacked from a file of any size."""

COMPRESSION = 60
"""Larger archives may unpack to this many times their size. Measured data compress 2 to 20 times."""

_CHUNK = 1 << 24
_MOST_ARRAYS, _MOST_FACTOR = 20_000, 1000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


LIMITS_VARIABLE = "WEAKCELL_LIMITS"
"""Environment variable: a factor of all limits of sizes, for files that are known to be good."""

_RAISE = f"{LIMITS_VARIABLE}=FACTOR raises the limit"


def allowed(limit: int) -> int:
    """Return a limit of a size times the factor that the user set in `WEAKCELL_LIMITS`.

    Raises:
        UsageError: The variable is not a number of at least 1.
    """
    text = os.environ.get(LIMITS_VARIABLE, "1")
    try:
        factor = parse_number(text)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= _MOST_FACTOR:
        do = f"Give a factor from 1 to {_MOST_FACTOR:,}, or unset the variable"
        raise UsageError(f"{LIMITS_VARIABLE}={text}", "it is no factor of the limits of sizes", do)
    return int(limit * factor)


def reason(error: BaseException) -> str:
    """Return an error's message in one line: the system's text, the first line of its text, or its type."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "")
    return " ".join(said.split()).rstrip(".") or type(error).__name__


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file and yield its bytes.

    Args:
        path: The file. Links are followed.

    Raises:
        OSError: It cannot be opened, or it is a folder, a pipe, a device or a socket.
    """
    try:
        # without O_NONBLOCK, opening a pipe waits until somebody writes to it
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL character in the name
        raise OSError(0, str(error)) from None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "it is not a regular file")
        yield file


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole regular file.

    Args:
        path: The file.
        limit: Largest permitted size in bytes, before the user's factor.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger than `limit`.
    """
    limit = allowed(limit)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        most = min(limit, max(size, _CHUNK))  # what is asked for is allocated before it is read
        content = file.read(most + 1) if size <= limit else b""
    if size > limit or len(content) > most:
        raise OSError(
            0,
            f"it has {max(size, len(content)):,} bytes, and {limit:,} are the most that are read; {_RAISE}",
        )
    return content


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Read a regular file of UTF-8 text. Raises OSError as `read_bytes` does, and UnicodeDecodeError."""
    return read_bytes(path, limit).decode("utf-8")


def parse_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: It is no JSON, or a string has half of a surrogate pair: no file, terminal or figure can show it. Those that
            Python makes of bytes in names of files (U+DC80 to U+DCFF) are legal.
        RecursionError: It is nested too deeply.
    """
    value = json.loads(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return value


def read_arrays(path: Path, asked: str, do: str) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an .npz file.

    Args:
        path: The file, as `numpy.savez` or `numpy.savez_compressed` writes it.
        asked: What was asked for; first part of an error message.
        do: What to do about an error; last part of its message.

    Returns:
        The arrays by name. Pickled objects are refused.

    Raises:
        InputError: The file cannot be read, is damaged, or unpacks to far more than its size suggests.
    """
    try:
        with open_regular(path) as file:
            if file.read(6) == b"\x93NUMPY":
                raise InputError(asked, "it is an .npy file, which holds one array without a name", do)
            file.seek(0)
            return _unpack(file, os.fstat(file.fileno()).st_size)
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise InputError(asked, reason(error), do) from error
    except (NotImplementedError, RuntimeError, MemoryError) as error:  # encrypted, an unknown compression, nested too deeply
        raise InputError(asked, reason(error), do) from error
    except tokenize.TokenError as error:  # NumPy parses the header of an array as Python text
        raise InputError(asked, "the header of an array cannot be parsed", do) from error


def _unpack(file: BinaryIO, size: int) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MOST_ARRAYS:
            raise ValueError(f"it has {len(members):,} arrays, and {_MOST_ARRAYS:,} are the most that are read")
        total, most = sum(member.file_size for member in members), allowed(max(SMALL_BYTES, COMPRESSION * size))
        if total > most:
            do = f"save it uncompressed, with numpy.savez, or {_RAISE}"
            found = f"it has {size:,} bytes and unpacks to {total:,}, more than {most:,}; {do}"
            raise ValueError(found)
        if not all(member.filename for member in members):  # zipfile cannot even say what is wrong with them
            raise ValueError("an array has no name")
        return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Read one array; its header must state as many bytes as follow."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
        if version not in _HEADERS:
            raise ValueError(f"its array {member.filename} has format {version}")
        shape, by_columns, dtype = _HEADERS[version](stream)  # type: ignore[arg-type]
        if dtype.hasobject or not dtype.itemsize:
            raise ValueError(f"its array {member.filename} holds objects, which are not read")
        stated, size = prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if stated != size or any(length < 0 for length in shape):
            raise ValueError(f"its array {member.filename} states {stated:,} bytes and has {size:,}")
        content, filled = np.empty(size, np.uint8), 0
        while filled < size:
            part = stream.read(min(_CHUNK, size - filled))
            if not part:
                raise EOFError(f"its array {member.filename} ends after {filled:,} bytes")
            content[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
        stream.read(1)  # the end of the stream is where its checksum is compared
    array = content.view(dtype).reshape(shape, order="F" if by_columns else "C")
    if not _is_text_valid(array):
        raise ValueError(f"its array {member.filename} holds text with characters that do not exist")
    return array


def _is_text_valid(array: npt.NDArray[Any]) -> bool:
    """Return whether all characters of text are Unicode; NumPy does not look and fails later. Fields of records count."""
    dtype = array.dtype
    if dtype.names is not None:
        return all(_is_text_valid(array[name]) for name in dtype.names)
    if dtype.kind != "U" or not array.size:
        return True
    characters = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
    return int(characters.max()) <= 0x10FFFF
