"""Content hashes: what is equal has equal digests, wherever it came from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from weakcell.emulator.ir.layers import Network
from weakcell.memmodels.protection.wrappers import split_wrappers


def sha256_of(content: Any) -> str:
    """Of anything that JSON can say; keys in any order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_sha256(network: Network) -> str:
    """Of every stored tensor: name, encoding, shape and values, wherever the file keeps them."""
    digest = hashlib.sha256()
    for tensor in network.tensors.values():
        digest.update(f"{tensor.name} {tensor.encoding} {tensor.values.shape}".encode())
        digest.update(tensor.values.astype("<i4").tobytes())
    return digest.hexdigest()


def memory_file_sha256(name: str) -> str | None:
    """Of the profile or recording that a memory's NAME reads (`file:PATH`, `recording:PATH`); None if it reads none."""
    kind, _, path = split_wrappers(name)[1].partition(":")
    if kind not in ("file", "recording") or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
