"""Frames on the wire: 00, COBS(content, CRC-32 little endian), 00.

Damaged frames are counted and dropped; nothing is corrected.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from weakcell.host.board.errors import BoardError

MAX_CONTENT = 300
MAX_ENCODED = MAX_CONTENT + 4 + 2
_ALL_BITS = 0xFFFFFFFF


@cache
def _cobs() -> Any:
    try:
        return import_module("cobs.cobs")
    except ModuleNotFoundError as error:
        raise BoardError(
            "Talking to a board", "the package cobs is not installed", "Install it with pip install 'weakcell[board]'"
        ) from error


def encode(content: bytes) -> bytes:
    """Return the frame of a content; ValueError if the content is too long."""
    if len(content) > MAX_CONTENT:
        raise ValueError(f"a frame holds {MAX_CONTENT} bytes, not {len(content)}")
    return b"\0" + bytes(_cobs().encode(content + zlib.crc32(content).to_bytes(4, "little"))) + b"\0"


class Decoder:
    """Decodes a byte stream into contents. After damage it starts again at the next 00.

    Attributes:
        good, damaged, oversize: frames so far.
    """

    def __init__(self, check: int = _ALL_BITS) -> None:
        """Start empty; check: bits of the CRC that must agree. Tests use fewer to see damage pass."""
        self.good = self.damaged = self.oversize = 0
        self._check = check
        self._pending = bytearray()
        self._skipping = False
        cobs = _cobs()
        self._decode: Callable[[bytes], bytes] = cobs.decode
        self._error: type[Exception] = cobs.DecodeError

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the contents of all undamaged frames that ended in them."""
        self._pending += data
        if b"\0" not in data:
            self._bound()
            return []
        *ended, remainder = bytes(self._pending).split(b"\0")
        self._pending = bytearray(remainder)
        contents = []
        for encoded in ended:
            if self._skipping:
                self._skipping = False
            elif encoded:
                content = self._content(encoded)
                if content is not None:
                    contents.append(content)
        self._bound()
        return contents

    def _bound(self) -> None:
        """Drop a frame that is longer than any frame may be."""
        if len(self._pending) > MAX_ENCODED:
            if not self._skipping:
                self.oversize += 1
                self.damaged += 1
            self._skipping = True
            self._pending.clear()

    def _content(self, encoded: bytes) -> bytes | None:
        try:
            raw = bytes(self._decode(encoded))
        except self._error:
            raw = b""
        content, crc = raw[:-4], int.from_bytes(raw[-4:], "little")
        if 4 < len(raw) <= MAX_CONTENT + 4 and not (crc ^ zlib.crc32(content)) & self._check:
            self.good += 1
            return content
        self.damaged += 1
        return None
