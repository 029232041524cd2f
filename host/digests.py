"""Content hashes: what is equal has equal digests, wherever it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from weakcell.emulator.ir.network import Network
from weakcell.memmodels.printable import escape_surrogates


def hash_json(content: Any) -> str:
    """Return the digest of any JSON content; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(escape_surrogates(text).encode()).hexdigest()


def weights_sha256(network: Network) -> str:
    """Return the digest of all stored tensors: name, encoding, shape and values, wherever the file has them."""
    digest = hashlib.sha256()
    for tensor in network.tensors.values():
        digest.update(f"{tensor.name} {tensor.encoding} {tensor.shape}".encode())
        digest.update(tensor.values.astype("<i4").tobytes())
    return digest.hexdigest()


def network_sha256(network: Network) -> str:
    """Return the digest of an imported network: its layers, values and tensors, but not its name."""
    digest = hashlib.sha256()
    for part in _canonical_parts(replace(network, name="")):
        digest.update(part)
    return digest.hexdigest()


def _canonical_parts(value: Any) -> Iterator[bytes]:
    if is_dataclass(value) and not isinstance(value, type):
        yield f"<{type(value).__name__}".encode()
        for field in fields(value):
            yield f" {field.name}=".encode()
            yield from _canonical_parts(getattr(value, field.name))
        yield b">"
    elif isinstance(value, np.ndarray):
        yield f"array {value.dtype.str} {value.shape} ".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        yield from _canonical_parts(tuple(value.items()))
    elif isinstance(value, tuple | list):
        yield b"("
        for item in value:
            yield from _canonical_parts(item)
            yield b","
        yield b")"
    else:
        yield repr(value).encode()


def memory_file_sha256(name: str) -> str | None:
    """Return the digest of the file that a memory's NAME reads (`file:PATH`, `recording:PATH`); None without one.

    It covers the arrays of a profile too, which are in a second file.
    """
    from weakcell.memmodels.profile import find_arrays
    from weakcell.memmodels.protection.wrappers import split_wrappers  # loads Numba, which `weakcell infer` does without

    kind, _, path = split_wrappers(name)[1].partition(":")
    if kind not in ("file", "recording") or not Path(path).is_file():
        return None
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    arrays = find_arrays(Path(path)) if kind == "file" else None
    if arrays is None:
        return digest
    return hashlib.sha256(f"{digest} {hashlib.sha256(arrays.read_bytes()).hexdigest()}".encode()).hexdigest()
