"""Published data sets: IDX, CIFAR pickles, SVHN matrices, image folders."""

from __future__ import annotations

import gzip
import pickle
import pickletools
import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzzing.engine import Reader, empty
from tests.fuzzing.mutations import INTEGERS, damage, hostile_text, hostile_value
from weakcell.host.datasets.readers import read_cifar_batch, read_idx, read_image_folder, read_svhn

# --- IDX -----------------------------------------------------------------------------------------------------------------------


@cache
def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(1 << 22), 9)


def _idx(random: Random) -> bytes:
    shape = random.choice(((3,), (2, 4, 4), (0,), (), (1, 1, 1, 1), (5, 28, 28)))
    content = bytes(int(np.prod(shape)))
    stated = [length if random.randrange(12) else random.choice(INTEGERS) % (1 << 32) for length in shape]
    kind = 8 if random.randrange(15) else random.choice((0, 9, 0x0B, 0x0D, 255))
    head = bytes((0, 0, kind, len(shape) if random.randrange(15) else random.randrange(256)))
    data = head + struct.pack(f">{len(shape)}I", *stated) + content
    if random.randrange(3) == 0:
        data = gzip.compress(data, 1)
        if random.randrange(6) == 0:
            data += random.choice((data, b"\0" * 9, b"\x1f\x8b", _gzip_bomb()))
    return damage(data, random) if random.randrange(5) == 0 else data


def _read_idx(data: bytes, folder: Path) -> None:
    (folder / "images-idx3-ubyte").write_bytes(data)
    read_idx(folder / "images-idx3-ubyte")


# --- CIFAR ---------------------------------------------------------------------------------------------------------------------

_OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@cache
def _batch(count: int, protocol: int, listed: bool) -> bytes:
    data = {
        b"batch_label": b"one",
        b"labels": list(range(count)),
        b"data": np.zeros((count, 3072), np.uint8),
        b"filenames": [b"a.png"] * count,
    }
    if not listed:
        data[b"labels"] = np.arange(count, dtype=np.uint8)
    return pickle.dumps(data, protocol)


def _plain(random: Random) -> dict[object, object]:
    labels: object = random.choice(
        ([1, 2], [10, 1], [True, 1], [1.0, 2.0], [1], [], "ab", None, [-1, 2], [1 << 70, 0], np.zeros(2, np.uint8))
    )
    zeros = np.zeros((2, 3072), np.uint8)
    data: object = random.choice(
        (zeros, np.asfortranarray(zeros), np.zeros((2, 3072)), b"", [0] * 9, zeros[0], zeros[:, :0], zeros.astype("S1"), None)
    )
    extra = {random.choice((b"x", "y", 3, None, hostile_text(random))): _picklable(random)} if random.randrange(2) else {}
    return {b"data": data, b"labels": labels, **extra}


def _doubled(depth: int) -> object:
    """Return a tuple that holds 2**depth parts, all of them the same."""
    nested: object = ()
    for _ in range(depth):
        nested = (nested, nested)
    return nested


def _picklable(random: Random) -> object:
    if random.randrange(20) == 0:
        return _doubled(random.choice((5, 40)))
    others = ({1, 2}, frozenset((1,)), 1j, bytearray(b"a"), Random, struct.pack, np.dtype("u1"), np.float64(1.0))
    return random.choice((hostile_value(random), *others))


def _insert_opcodes(data: bytes, random: Random) -> bytes:
    """Insert, replace or repeat whole opcodes."""
    places = [place for _, _, place in pickletools.genops(data) if place is not None]
    for _ in range(random.randint(1, 3)):
        at = random.choice(places)
        code = random.choice(_OPCODES) + random.choice(
            (b"", b"\0", b"\1", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"a\n", random.randbytes(8))
        )
        data = random.choice((data[:at] + code + data[at:], data[:at] + code * 40 + data[at:], data[:at] + code + data[at + 1 :]))
    return data


def _cifar(random: Random) -> bytes:
    kind = random.randrange(4)
    if kind == 0:
        data = _batch(random.choice((1, 2, 10)), random.choice((1, 2, 3, 4, 5)), bool(random.randrange(2)))
    else:
        data = pickle.dumps(_plain(random), random.choice((0, 1, 2, 2, 2, 2, 3, 4, 4, 4, 5)))
    if random.randrange(4) == 0:
        data = _insert_opcodes(data, random)
    elif random.randrange(3) == 0:  # where the structure is: the head and the tail
        data = damage(data[:200], random) + data[200:-200] + damage(data[-200:], random)
    return data


def _read_cifar(data: bytes, folder: Path) -> None:
    (folder / "data_batch_1").write_bytes(data)
    read_cifar_batch(folder / "data_batch_1")


# --- SVHN ----------------------------------------------------------------------------------------------------------------------


def _element(kind: int, data: bytes, random: Random, order: str, chance: float) -> bytes:
    size = len(data)
    if random.random() < chance:
        size = random.choice(INTEGERS) % (1 << 32)
    if random.random() < chance:
        kind = random.choice((0, 1, 2, 5, 9, 14, 15, 18, 255, 1 << 16, (5 << 16) | 1))
    if size <= 4 and random.randrange(4) == 0:
        return struct.pack(f"{order}I", (size << 16) | (kind & 0xFFFF)) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, size) + data + bytes(-len(data) % 8)


def _matrix(name: str, array: np.ndarray, random: Random, order: str, chance: float) -> bytes:  # type: ignore[type-arg]
    classes, kinds = {"u1": 9, "f8": 6, "i4": 12}, {"u1": 2, "f8": 9, "i4": 5}
    code = array.dtype.str[1:]
    flags = classes[code] if random.random() > chance else random.choice((1, 2, 3, 4, 5, 6, 9, 15, 16, 0x806, 255))
    shape = [length if random.random() > chance else random.choice(INTEGERS) % (1 << 32) for length in array.shape]
    parts = [
        _element(6, struct.pack(f"{order}II", flags, 0), random, order, chance),
        _element(5, struct.pack(f"{order}{len(shape)}I", *shape), random, order, chance),
        _element(1, name.encode("latin-1", "replace"), random, order, chance),
        _element(kinds[code], array.astype(array.dtype.newbyteorder(order)).tobytes("F"), random, order, chance),
    ]
    if random.random() < chance:
        del parts[random.randrange(4)]
    return _element(14, b"".join(parts), random, order, chance)


def _svhn(random: Random) -> bytes:
    count, order, chance = random.choice((1, 2, 3)), random.choice("<<<>"), random.choice((0.0, 0.02, 0.05))
    labels = np.array([[random.choice((1, 5, 10))] for _ in range(count)], random.choice(("u1", "f8", "i4")))
    if random.randrange(6) == 0:
        labels[0] = random.choice((0, 11, 255))
    matrices = [("X", np.zeros((32, 32, 3, count), "u1")), ("y", labels)]
    if random.randrange(5) == 0:
        matrices.append((hostile_text(random)[:40], np.zeros((2, 2), "f8")))
    body = b""
    for name, array in matrices:
        matrix = _matrix(name, array, random, order, chance)
        if random.randrange(2):
            packed = zlib.compress(matrix, 1)
            if random.random() < chance:
                packed = random.choice((_packed_zeros(1 << 22), packed + packed, packed[:-4], b""))
            matrix = struct.pack(f"{order}II", 15, len(packed)) + packed
        body += matrix
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + (b"IM" if order == "<" else b"MI")
    return head + body


def _read_svhn(data: bytes, folder: Path) -> None:
    (folder / "train_32x32.mat").write_bytes(data)
    read_svhn(folder / "train_32x32.mat")


# --- image folders -------------------------------------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes, random: Random) -> bytes:
    crc = zlib.crc32(kind + data) if random.randrange(30) else 0
    size = len(data) if random.randrange(40) else random.choice((0, 1 << 31, (1 << 32) - 1))
    return struct.pack(">I", size) + kind + data + struct.pack(">I", crc)


@cache
def _packed_zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def _png(random: Random) -> bytes:
    side, lies = random.choice((1, 2, 8, 9)), (0, 1, 65535, 100_000, 1 << 31, (1 << 31) - 1)
    width, height = (side if random.randrange(8) else random.choice(lies) for _ in range(2))
    kind, depth = random.choice((0, 2, 3, 4, 6, 2, 2)), random.choice((8, 8, 8, 16, 1, 2, 4))
    rows = b"".join(b"\0" + bytes(side * 8) for _ in range(side))
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, random.choice((0, 0, 1))), random)]
    if kind == 3:
        chunks.append(_chunk(b"PLTE", bytes(random.choice((3, 48, 768, 5))), random))
    others = (
        (b"iCCP", b"a\0\0" + _packed_zeros(random.choice((10, 1 << 22)))),
        (b"zTXt", b"a\0\0" + _packed_zeros(random.choice((10, 1 << 22)))),
        (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 100)),
        *((b"tEXt", b"a\0b"), (b"gAMA", bytes(4)), (b"tRNS", bytes(6)), (b"pHYs", bytes(9))),
        (b"acTL", struct.pack(">II", random.choice((1, 2, 1 << 31)), 0)),
        (b"eXIf", b"MM\0*" + random.randbytes(20)),
    )
    chunks += [_chunk(*random.choice(others), random) for _ in range(random.randrange(3))]
    chunks.append(_chunk(b"IDAT", zlib.compress(rows, 1), random))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, _chunk(b"IEND", b"", random)])


@cache
def _sample(kind: str, side: int) -> bytes:
    from PIL import Image

    file = BytesIO()
    mode = {"JPEG": "RGB", "GIF": "P", "TIFF": "I;16", "BMP": "RGB", "WEBP": "RGB", "ICO": "RGBA", "PPM": "RGB"}[kind]
    Image.new(mode, (side, side)).save(file, kind)
    return file.getvalue()


def _images(random: Random) -> bytes:
    kind = random.randrange(10)
    if kind <= 4:
        data = _png(random)
    elif kind <= 8:
        data = _sample("JPEG", random.choice((1, 8, 16)))
        data = (
            damage(data[:20], random) + data[20:]
            if random.randrange(4) == 0
            else damage(data, random)
            if random.randrange(3)
            else data
        )
    else:
        data = damage(_sample(random.choice(("GIF", "TIFF", "BMP", "WEBP", "ICO", "PPM")), 8), random)
    return damage(data, random) if random.randrange(4) == 0 else data


def _read_images(data: bytes, folder: Path) -> None:
    empty(folder)
    (folder / "a").mkdir()
    (folder / "a" / "0.png").write_bytes(data)
    read_image_folder(folder)


_GRAMMAR = "opcode b.* unknown|bytes in a|do not fit together|plain data do not need|no newline|pickle exhausted"
READERS = {
    reader.name: reader
    for reader in (
        Reader("idx", _idx, _read_idx, "it starts with the bytes|gzipped|Error -3", ""),
        Reader("cifar", _cifar, _read_cifar, _GRAMMAR, ".pickle"),
        Reader("svhn", _svhn, _read_svhn, "it is not a MATLAB file", ".mat"),
        Reader("images", _images, _read_images, "it is no JPEG or PNG", ".png", tests=60),
    )
}
