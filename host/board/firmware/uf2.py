"""UF2 files as the boot ROMs accept them, and the CRC of the RP2040's second stage."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from weakcell.memmodels.errors import InputError

_UF2_MAGIC = (0x0A324655, 0x9E5D5157)
_UF2_END = 0x0AB16F30
_UF2_FAMILY_PRESENT = 0x2000
_UF2_PAYLOAD = 256
BOOT2_BYTES = 256


def make_uf2_blocks(image: tuple[int, bytes], family: int) -> Iterator[bytes]:
    """Yield the blocks of a UF2 file: 512 bytes each, 256 of them payload.

    Args:
        image: first address, and the bytes from there on.
        family: UF2 family id of the chip.
    """
    address, data = image
    count = -(-len(data) // _UF2_PAYLOAD)
    for number in range(count):
        payload = data[number * _UF2_PAYLOAD : (number + 1) * _UF2_PAYLOAD].ljust(_UF2_PAYLOAD, b"\0")
        head = (*_UF2_MAGIC, _UF2_FAMILY_PRESENT, address + number * _UF2_PAYLOAD, _UF2_PAYLOAD, number, count, family)
        yield struct.pack("<8I", *head) + payload.ljust(476, b"\0") + struct.pack("<I", _UF2_END)


def read_uf2(data: bytes) -> tuple[int, int, bytes]:
    """Read a UF2 file by the boot ROM's rules.

    Returns:
        Family id, first address, and the bytes from there on.

    Raises:
        InputError: the boot ROM would refuse the file.
    """
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    parts: list[bytes] = []
    first = family = 0
    for number, block in enumerate(blocks):
        reason = _why_refused(block, number, len(blocks))
        if reason is None:
            address, block_family = struct.unpack_from("<I", block, 12)[0], struct.unpack_from("<I", block, 28)[0]
            first, family = (first, family) if number else (address, block_family)
            contiguous = (address, block_family) == (first + number * _UF2_PAYLOAD, family)
            reason = None if contiguous else "gaps or several families"
        if reason is not None:
            raise InputError("Reading a UF2 image", f"block {number}: {reason}", "Build it again: `weakcell firmware build`")
        parts.append(block[32 : 32 + _UF2_PAYLOAD])
    if not parts:
        raise InputError("Reading a UF2 image", "it is empty", "Build it again: `weakcell firmware build`")
    return family, first, b"".join(parts)


def _why_refused(block: bytes, number: int, count: int) -> str | None:
    if len(block) != 512:
        return "not 512 bytes"
    *magic, flags, _, size, block_number, block_count, _ = struct.unpack_from("<8I", block)
    if tuple(magic) != _UF2_MAGIC or struct.unpack_from("<I", block, 508)[0] != _UF2_END:
        return "wrong magic numbers"
    if flags & 1 or not flags & _UF2_FAMILY_PRESENT or size != _UF2_PAYLOAD:
        return "wrong flags or payload size"
    return None if (block_number, block_count) == (number, count) else "wrong block number"


def crc32_mpeg2(data: bytes) -> int:
    """Return the CRC-32/MPEG-2: polynomial 04C11DB7h, initial value all ones, not reflected, not inverted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def add_boot2_crc(code: bytes) -> bytes:
    """Return a second stage as the RP2040's boot ROM accepts it: 252 bytes and their CRC."""
    body = code.ljust(BOOT2_BYTES - 4, b"\0")
    return body + struct.pack("<I", crc32_mpeg2(body))
