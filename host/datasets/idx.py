"""The IDX file format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from weakcell.memmodels.errors import InputError


def read_idx(path: str | Path) -> np.ndarray:
    """The unsigned bytes of an IDX file, plain or gzip, in the shape that its header states."""

    def refusal(found: str) -> InputError:
        return InputError(f"Reading {path} as an IDX file", found, "Name a file of unsigned bytes in IDX format, plain or gzip")

    try:
        raw = Path(path).read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise refusal(getattr(error, "strerror", None) or str(error)) from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 or len(content) < (start := 4 + 4 * content[3]):
        raise refusal(f"it starts with the bytes {content[:4].hex(' ') or '(none)'}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise refusal(f"its header states the shape {shape}, but {len(content) - start} bytes follow")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
