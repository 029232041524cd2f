"""Archives of arrays (.npz): data, recordings, read-backs. Zip files are written by hand, so that they can lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzzing.engine import Reader
from tests.fuzzing.mutations import INTEGERS, change_tree, damage, hostile_text, write_json
from tests.fuzzing.readers.tables import use_readbacks
from weakcell.host.datasets.registry import load_data
from weakcell.memmodels import recording
from weakcell.memmodels.memory import Key

_DTYPES = (
    *(
        "|u1",
        "<u8",
        "<f4",
        "<f8",
        "<i8",
        "|b1",
        "<U3",
        "|S5",
        "|O",
        "<M8[s]",
        "|V8",
        "<c8",
        "<f2",
        ">i4",
        "<u4",
        "|i1",
        "",
        "x",
        "V0",
        "<U0",
    ),
    *("u1, u1", "<U99999999", "<f16", "4u1", "i4,(2,3)f8", "O8"),
)
_EARLY = "is not a zip file|not a regular file|Bad magic number|Truncated|magic string"


def npy(array: np.ndarray[Any, Any], random: Random, lies: float = 0.25) -> bytes:
    """Return an array as .npy; with a probability, its header says something else."""
    shape, dtype, version = repr(array.shape), repr(array.dtype.str), (1, 0)
    order = str(bool(random.randrange(8) == 0))
    if random.random() < lies:
        kind = random.randrange(8)
        if kind == 0:
            shape = repr(tuple(random.choice(INTEGERS) for _ in range(random.choice((0, 1, 2, 40)))))
        elif kind == 1:
            shapes = "(", "()", "[3]", "(3.0,)", "(True,)", "(-1, -3)", "('3',)", "None", "(" * 99, "(0, 99999999999999999)"
            shape = random.choice(shapes)
        elif kind == 2:
            dtype = repr(random.choice(_DTYPES))
        elif kind == 3:
            dtypes = "[('a', '<u8')]", "[('a', 'O')]", "{'names': ['a'], 'formats': ['u1']}", "None", "3", "'u1' * 999", "-1"
            dtype = random.choice(dtypes)
        elif kind == 4:
            version = random.choice(((2, 0), (3, 0), (1, 1), (0, 0), (255, 255)))
        elif kind == 5:
            order = random.choice(("1", "None", "'a'", "-" * 200 + "1", "(" * 150 + ")" * 150))
        elif kind == 6:
            shape = "+".join(["1"] * random.choice((2, 500)))
        else:
            order = "False, 'x': " + random.choice(("[" * 90 + "]" * 90, "1", "'" + "a" * 20000 + "'"))
    head = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}".encode("latin-1", "replace") + b"\n"
    size = len(head) if random.random() > lies / 10 else random.choice((0, 1, 65535, 1 << 31))
    length = struct.pack("<I", size % (1 << 32)) if version[0] in (2, 3) else struct.pack("<H", size % (1 << 16))
    content = array.tobytes("F" if order == "True" else "C") if array.dtype != object else b""
    if random.random() < lies / 5:
        content = damage(content, random)
    return b"\x93NUMPY" + bytes(version) + length + head + content


def archive(members: list[tuple[str, bytes]], random: Random) -> bytes:
    """Return a zip file of members; now and then a field of a header lies."""
    lies = random.randrange(6) == 0
    parts, directory, offset = [], [], 0
    for name, content in members:
        raw, method = content, random.choice((0, 8))
        if method == 8:
            packer = zlib.compressobj(1, zlib.DEFLATED, -15)
            raw = packer.compress(content) + packer.flush()
        encoded, size, packed, crc, flags = name.encode("utf-8", "replace"), len(content), len(raw), zlib.crc32(content), 0x800
        extra, start, stated = b"", offset, method
        if lies and random.randrange(2):
            kind = random.randrange(9)
            size = random.choice((0, size + 1, 1 << 31, (1 << 32) - 1, size * 1000)) if kind == 0 else size
            packed = random.choice((0, packed + 1, (1 << 32) - 1, 1)) if kind == 1 else packed
            crc = 0 if kind == 2 else crc
            flags = random.choice((1, 8, 0x41, 0xFFFF)) if kind == 3 else flags
            stated = random.choice((1, 9, 12, 14, 93, 99, 8, 0)) if kind == 4 else stated
            start = random.choice((0, offset + 1, (1 << 32) - 1)) if kind == 5 else start
            if kind == 6:
                size, start = random.choice((size, 1 << 44, 1 << 63)), random.choice((0, offset, 1 << 62))
                extra = struct.pack("<HHQQQ", 1, 24, size, packed, start)
                size = packed = start = (1 << 32) - 1
            elif kind == 7:
                extra = random.choice((b"\1\0\xff\xff", b"\1\0\0\0", random.randbytes(7)))
            elif kind == 8:
                encoded = random.choice((b"", b"/x.npy", b"../y.npy", b"\xff\xfe", b"a\0b", encoded * 50))
        fields = flags, stated, 0, 0, crc, packed % (1 << 32), size % (1 << 32), len(encoded)
        parts.append(struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, *fields, 0) + encoded + raw)
        central = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, *fields, len(extra), 0, 0, 0, 0, start % (1 << 32))
        directory.append(central + encoded + extra)
        offset += len(parts[-1])
    names = b"".join(directory)
    count = len(directory) if not lies or random.randrange(3) else random.choice((0, 65535, 1))
    return b"".join(parts) + names + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(names), offset, 0)


def _pack(arrays: Mapping[str, np.ndarray[Any, Any]], random: Random) -> bytes:
    members = [(f"{name}.npy", npy(array, random, 0.3 / len(arrays))) for name, array in arrays.items()]
    if random.randrange(12) == 0:
        members.append(random.choice(members))
    if random.randrange(12) == 0:
        del members[random.randrange(len(members))]
    return archive(members, random)


# --- data ----------------------------------------------------------------------------------------------------------------------


def _array(random: Random, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    dtype = random.choice(("u1", "f4", "f8", "i8", "b1", "i4", "u8", "f2", "c8", "U2"))
    array = np.zeros(shape, dtype)
    if dtype in ("f4", "f8") and random.randrange(4) == 0 and array.size:
        array.reshape(-1)[0] = random.choice((np.nan, np.inf, 1e30))
    return array


def _data(random: Random) -> bytes:
    count = random.choice((1, 3, 8, 0))
    arrays = {"x": _array(random, random.choice(((count, 1, 8, 8), (count, 4), (count,), (), (count, 0))))}
    if random.randrange(2):
        arrays["y"] = _array(random, random.choice(((count,), (count, 2), (), (count + 1,))))
    if random.randrange(6) == 0:
        arrays[hostile_text(random)[:50]] = np.zeros(2)
    return _pack(arrays, random)


def _read_data(data: bytes, folder: Path) -> None:
    (folder / "d.npz").write_bytes(data)
    dataset = load_data(folder / "d.npz")
    dataset.first(2)
    repr(dataset)
    _ = dataset.sha256


# --- recordings ----------------------------------------------------------------------------------------------------------------


def _recording(random: Random) -> bytes:
    regions, takes, arrays = [], [], {}
    for number in range(random.randint(1, 2)):
        width, elements = random.choice(((8, 16), (1, 100), (4, 10), (64, 2)))
        words = -(-width * elements // 64)
        layout = {"name": f"w{number}", "elements": elements, "width": width, "planes": list(range(width)), "erased": 0}
        regions.append({"layout": layout, "first_word": number * 100, "key": [0, 0, 0]})
        arrays |= {f"written/{number}": np.zeros(words, "u8"), f"stored/{number}": np.zeros(words, "u8")}
        if random.randrange(3) == 0:
            arrays[f"previous/{number}"] = np.zeros(words, "u8")
    for number in range(random.randint(1, 3)):
        region, reads = random.randrange(len(regions)), random.choice((1, 2, 0))
        notes = [{"commanded": {"vdd": 0.6}, "measured": {}, "corrected": 0, "erased": 0} for _ in range(reads)]
        takes.append({"region": region, "point": {"vdd": 0.6 + 0.1 * number}, "notes": notes})
        arrays[f"reads/{number}"] = np.zeros((reads, len(arrays[f"written/{region}"])), "u8")
    about = {"schema": 1, "about": {"title": "t", "source": "s", "basis": "measured"}, "regions": regions, "takes": takes}
    about = change_tree(about, random, random.choice((0, 1, 1, 1, 2)))
    text = write_json(about, random).decode()
    return _pack({"about": np.array(text), **arrays}, random)


def _read_recording(data: bytes, folder: Path) -> None:
    (folder / "r.npz").write_bytes(data)
    recording._load.cache_clear()
    technology = recording.technology_of(str(folder / "r.npz"))
    repr((technology.title, technology.source, technology.notes, technology.conditions))
    memory = recording.open_recording(str(folder / "r.npz"), {})
    for region in memory.recording.regions:
        again = memory.write(region.written, region.layout, Key(0, 0, 0))
        memory.read(again, Key(0, 0, 0), np.empty_like(again.written))


# --- read-backs ----------------------------------------------------------------------------------------------------------------


def _readbacks(random: Random) -> bytes:
    points, reads, size = random.choice((1, 2, 3)), random.choice((1, 2)), random.choice((1, 8, 13))
    read = np.zeros((points, reads, size), "u1")
    written = np.zeros(random.choice(((size,), (points, size))), "u1")
    arrays: dict[str, Any] = {"vdd": 0.5 + 0.1 * np.arange(points), "written": written}
    arrays["read"] = read if random.randrange(3) else read[:, 0]
    others: dict[str, Any] = {"dwell_s": 0.01, "rows": 8, "columns": 8, "nominal": 1.0, "title": "t", "source": "s", "notes": 3}
    for name in random.sample(list(others), random.randrange(4)):
        arrays[name] = np.array(others[name])
    if random.randrange(3) == 0:
        name = random.choice(list(arrays))
        arrays[name] = _array(random, random.choice((arrays[name].shape, (), (2,), (0,), (2, 2), (1, 1, 1, 1))))
    if random.randrange(6) == 0:
        arrays["vdd"] = np.full(points, random.choice((np.nan, np.inf, -1.0, 0.0, 1e300, 0.5)))
    return _pack(arrays, random)


def _read_readbacks(data: bytes, folder: Path) -> None:
    (folder / "r.npz").write_bytes(data)
    use_readbacks(folder / "r.npz")


def _reader(name: str, generate: Callable[[Random], bytes], read: Callable[[bytes, Path], object]) -> Reader:
    return Reader(name, generate, read, _EARLY, ".npz", tests=60)


READERS = {
    reader.name: reader
    for reader in (
        _reader("data-npz", _data, _read_data),
        _reader("recording", _recording, _read_recording),
        _reader("readbacks-npz", _readbacks, _read_readbacks),
    )
}
