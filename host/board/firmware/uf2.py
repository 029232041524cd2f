"""UF2 files, as the boot ROMs of both chips take them, and the checksum that the RP2040's boot ROM wants of a second stage."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from weakcell.memmodels.errors import InputError

_UF2_MAGIC = (0x0A324655, 0x9E5D5157)
_UF2_END = 0x0AB16F30
_UF2_FAMILY_PRESENT = 0x2000
_UF2_PAYLOAD = 256
BOOT2_BYTES = 256


def uf2_blocks(image: tuple[int, bytes], family: int) -> Iterator[bytes]:
    """The blocks of a UF2 file: 512 bytes each, 256 of them payload, as both boot ROMs want them."""
    address, data = image
    count = -(-len(data) // _UF2_PAYLOAD)
    for number in range(count):
        payload = data[number * _UF2_PAYLOAD : (number + 1) * _UF2_PAYLOAD].ljust(_UF2_PAYLOAD, b"\0")
        head = (*_UF2_MAGIC, _UF2_FAMILY_PRESENT, address + number * _UF2_PAYLOAD, _UF2_PAYLOAD, number, count, family)
        yield struct.pack("<8I", *head) + payload.ljust(476, b"\0") + struct.pack("<I", _UF2_END)


def read_uf2(data: bytes) -> tuple[int, int, bytes]:
    """Family, first address and bytes of a UF2 file, by the boot ROM's rules; InputError if it would not be taken."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    parts: list[bytes] = []
    first = family = 0
    for number, block in enumerate(blocks):
        reason = _objection(block, number, len(blocks))
        if reason is None:
            address, told = struct.unpack_from("<I", block, 12)[0], struct.unpack_from("<I", block, 28)[0]
            first, family = (first, family) if number else (address, told)
            reason = None if (address, told) == (first + number * _UF2_PAYLOAD, family) else "gaps or several families"
        if reason is not None:
            raise InputError("Reading a UF2 image", f"block {number}: {reason}", "Build it again: `weakcell firmware build`")
        parts.append(block[32 : 32 + _UF2_PAYLOAD])
    if not parts:
        raise InputError("Reading a UF2 image", "it is empty", "Build it again: `weakcell firmware build`")
    return family, first, b"".join(parts)


def _objection(block: bytes, number: int, count: int) -> str | None:
    if len(block) != 512:
        return "not 512 bytes"
    *magic, flags, _, size, told_number, told_count, _ = struct.unpack_from("<8I", block)
    if tuple(magic) != _UF2_MAGIC or struct.unpack_from("<I", block, 508)[0] != _UF2_END:
        return "wrong magic numbers"
    if flags & 1 or not flags & _UF2_FAMILY_PRESENT or size != _UF2_PAYLOAD:
        return "wrong flags or payload size"
    return None if (told_number, told_count) == (number, count) else "wrong block number"


def crc32_mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2: polynomial 04C11DB7h, initial value all ones, not reflected, not inverted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def boot2(code: bytes) -> bytes:
    """A second stage as the RP2040's boot ROM accepts it: 252 bytes and their CRC."""
    body = code.ljust(BOOT2_BYTES - 4, b"\0")
    return body + struct.pack("<I", crc32_mpeg2(body))
