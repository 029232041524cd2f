"""Run kernels for AMX, instruction by instruction, in the PC emulator Bochs, and compare what they write bit for bit.

python -m tests.emulator.amx_in_bochs --bochs PROGRAM --bios FOLDER [--seeds 6]

PROGRAM is Bochs 3.0 or later, with its terminal display and a processor `sapphire_rapids`; FOLDER has its BIOS-bochs-latest and
VGABIOS-lgpl-latest. It needs cc, ld and ten minutes, and no processor with AMX. Networks of `tiled_networks.py` run here; each call
of a kernel with a path for tiles is recorded, its output compared with NumPy's through the network's outputs. Then each call runs
in the guest twice, with code for tiles and with code for vectors of the same processor.

Bochs 3.0 multiplies unsigned by *unsigned* bytes in `tdpbusd` (`DPBDUS` in cpu/avx/amx.cc). This program tells whether the given
one does, and then says what to change. It has no extended feature disable (XFD) either, without which Linux permits no tiles.
So the guest has no operating system, and the system's permission is not a part of this test.
"""

from __future__ import annotations

import argparse
import os
import pickle
import pty
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from tests.emulator.reference import evaluate
from tests.emulator.small import pixels
from tests.emulator.tiled_networks import tiled_network
from weakcell.emulator import compile_plan, infer
from weakcell.memmodels.native import kernel_cache
from weakcell.memmodels.native.arguments import flatten
from weakcell.memmodels.native.installed_code import COMMON_TARGETS

GUEST = Path(__file__).with_name("amx_guest")
CODE, DATA, CHUNK = 0x100000, 0x400000, 0x8000
"""Addresses of code and data in the guest, and the bytes that `boot.S` reads at once."""

TILED = ("convolution", "sign_convolution")
"""Kernels with a path for tiles."""

_HEADER = object.__basicsize__ + 32
"""Bytes of a NumPy array's object that kernels read: data, dimensions, and the addresses of shape and strides."""

_COMPILE = """
import pickle, sys
from importlib import import_module
from weakcell.memmodels.native import tile_permission
choice = tile_permission.TileChoice(sys.argv[1])
tile_permission.choose_tiles = lambda: choice  # this machine runs none of the code
from weakcell.memmodels.native.object_files import build, defer_optimization
defer_optimization()
for number, (module, function, kinds) in enumerate(pickle.load(sys.stdin.buffer)):
    code = build(getattr(import_module(module), function), kinds, f"{sys.argv[1]}_{number}")
    open(f"{sys.argv[2]}/{sys.argv[1]}_{number}.o", "wb").write(code)
"""


class Call(NamedTuple):
    """One call of a kernel: its arguments, and its output before and after."""

    module: str
    function: str
    arguments: tuple[Any, ...]
    before: bytes
    after: bytes


def record_calls(seeds: int) -> list[Call]:
    """Run networks on this machine, compare their outputs with NumPy's, and return the calls of kernels that may use tiles."""
    calls: list[Call] = []
    run = kernel_cache.BoundKernel.__call__

    def record(bound: Any, *first: Any) -> int:
        before = first[1].tobytes() if bound._kernel.name in TILED else b""
        result = run(bound, *first)
        if bound._kernel.name in TILED:
            arguments = tuple(x.copy() for x in first) + bound._last
            calls.append(Call(bound._kernel.module, bound._kernel.name, arguments, before, first[1].tobytes()))
        return result

    kernel_cache.BoundKernel.__call__ = record  # type: ignore[method-assign]
    for seed in range(seeds):
        network = tiled_network(seed, whole=True)
        images = pixels(network, 3 if seed else 17, seed)  # 17 rows of a dense layer fill a tile
        made, expected = infer(compile_plan(network), images), evaluate(network, images)
        for name in network.outputs:
            np.testing.assert_array_equal(made[name], expected[name])
    kernel_cache.BoundKernel.__call__ = run  # type: ignore[method-assign]
    return calls


class Memory:
    """The guest's memory from DATA on."""

    def __init__(self, reserved: int) -> None:
        self.content = bytearray(reserved)

    def add(self, content: bytes) -> int:
        """Append bytes at a multiple of 64, and return their address."""
        self.content += bytes(-len(self.content) % 64)
        self.content += content
        return DATA + len(self.content) - len(content)

    def add_array(self, array: np.ndarray) -> tuple[int, int]:
        """Append an array; return the addresses of its object and of its data."""
        data = self.add(array.tobytes() + bytes(64))  # a run may be read up to a whole word
        shape, strides = (self.add(struct.pack(f"{array.ndim}q", *axes)) for axes in (array.shape, array.strides))
        head = bytes(object.__basicsize__) + struct.pack("qqqq", data, array.ndim, shape, strides)
        assert len(head) == _HEADER
        return self.add(head), data


def arrays_of(arguments: Any) -> Iterator[np.ndarray]:
    """Yield the arrays among nested arguments."""
    for x in arguments:
        if isinstance(x, np.ndarray):
            yield x
        elif isinstance(x, tuple):
            yield from arrays_of(x)


def lay_out(calls: list[Call]) -> tuple[bytes, list[tuple[Any, ...]]]:
    """Return the guest's memory from DATA on, and the kernels: module, function and types."""
    kernels: list[tuple[Any, ...]] = []
    memory, table = Memory(8 + 48 * len(calls)), [struct.pack("q", len(calls))]
    for call in calls:
        kinds: list[object] = []
        words: list[int] = []
        flatten(call.arguments, kinds, words)
        places = {id(array): memory.add_array(array) for array in arrays_of(call.arguments)}
        kernel = (call.module, call.function, tuple(kinds))
        if kernel not in kernels:
            kernels.append(kernel)
        out = places[id(call.arguments[1])][1]
        row = memory.add(struct.pack(f"{len(words)}q", *(places[w][0] if w in places else w for w in words)))
        before, after = memory.add(call.before), memory.add(call.after)
        table.append(struct.pack("6q", kernels.index(kernel), row, out, before, after, len(call.after)))
    memory.content[: 8 + 48 * len(calls)] = b"".join(table)
    return bytes(memory.content), kernels


def compile_kernels(kernels: list[tuple[Any, ...]], folder: Path) -> None:
    """Compile each kernel with tiles and without, for a processor with AMX."""
    features = ",".join(f"+{feature}" for feature in (*COMMON_TARGETS["x86-64-v4-vnni"][1], "amx-tile", "amx-int8"))
    environment = {**os.environ, "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": features}
    for tiles in ("amx", "none"):
        command = [sys.executable, "-c", _COMPILE, tiles, folder]
        subprocess.run(command, input=pickle.dumps(kernels), env=environment, check=True)


def link(count: int, data: bytes, folder: Path) -> int:
    """Write the guest's disk; return its cylinders of 16 heads and 63 sectors."""
    names = {tiles: [f"{tiles}_{number}" for number in range(count)] for tiles in ("amx", "none")}
    tables = "".join(f"int {name}();" for both in names.values() for name in both)
    tables += f"void *tile_kernels[] = {{{', '.join(names['amx'])}}}; void *vector_kernels[] = {{{', '.join(names['none'])}}};"
    (folder / "tables.c").write_text(tables)
    sections = ".text : { *(.text.start) *(.text*) *(.ltext*) } .data : { *(.rodata*) *(.lrodata*) *(.data*) *(.ldata*) *(.got*) }"
    discarded = "/DISCARD/ : { *(.eh_frame) *(.comment) *(.note*) }"
    rest = ".bss : { *(.bss*) *(.lbss*) *(COMMON) }"
    (folder / "guest.ld").write_text(f"SECTIONS {{ . = {CODE}; {sections} {rest} {discarded} }}")
    flags = [
        "-O1",
        "-ffreestanding",
        "-fno-builtin",
        "-fno-stack-protector",
        "-fno-pic",
        "-mno-red-zone",
        "-mamx-tile",
        "-mamx-int8",
    ]
    chunks = -(-(DATA - CODE + len(data)) // CHUNK)

    def execute(*command: object) -> None:
        subprocess.run([*map(str, command)], cwd=folder, check=True)

    execute("cc", *flags, "-c", GUEST / "main.c", "tables.c")
    execute("cc", "-c", f"-DCHUNKS={chunks}", GUEST / "boot.S", "-o", "boot.o")
    execute("ld", "-Ttext=0x7c00", "--oformat=binary", "boot.o", "-o", "boot.bin")
    objects = [f"{name}.o" for both in names.values() for name in both]
    execute("ld", "-T", "guest.ld", "--oformat=binary", "main.o", "tables.o", *objects, "-o", "guest.bin")
    code = (folder / "guest.bin").read_bytes()
    assert len(code) < DATA - CODE, "the code does not fit before the data"
    disk = (folder / "boot.bin").read_bytes() + code.ljust(DATA - CODE, b"\0") + data
    cylinders = -(-(len(disk) + CHUNK) // (16 * 63 * 512))
    (folder / "disk.img").write_bytes(disk.ljust(cylinders * 16 * 63 * 512, b"\0"))
    return cylinders


def run_guest(bochs: str, bios: Path, cylinders: int, folder: Path) -> str:
    """Run Bochs on the disk and return what the guest says. Its display needs a terminal."""
    lines = (
        "cpu: model=sapphire_rapids, count=1, ips=50000000, reset_on_triple_fault=0",
        "memory: guest=512, host=512",
        f"romimage: file={bios}/BIOS-bochs-latest",
        f"vgaromimage: file={bios}/VGABIOS-lgpl-latest",
        f"ata0-master: type=disk, path=disk.img, mode=flat, cylinders={cylinders}, heads=16, spt=63",
        "boot: disk",
        "port_e9_hack: enabled=1",
        "log: bochs.log",
        "panic: action=fatal",
        "display_library: term",
        "plugin_ctrl: unmapped=1",
    )
    (folder / "bochsrc").write_text("\n".join(lines) + "\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([bochs, "-q", "-f", "bochsrc"], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 1 << 16):
            said += part
    except OSError:  # the other end is closed
        pass
    process.wait()
    return said.decode(errors="replace")


def main() -> None:
    """Record, compile, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bochs", default="bochs")
    parser.add_argument("--bios", type=Path, default=Path("/usr/share/bochs"))
    parser.add_argument("--seeds", type=int, default=6)
    given = parser.parse_args()
    calls = record_calls(given.seeds)
    data, kernels = lay_out(calls)
    with TemporaryDirectory() as name:
        folder = Path(name)
        compile_kernels(kernels, folder)
        said = run_guest(given.bochs, given.bios.resolve(), link(len(kernels), data, folder), folder)
    if "tdpbusd right" not in said:
        wrong = "This Bochs multiplies unsigned by unsigned bytes: in DPBDUS of its cpu/avx/amx.cc, ybyte must be Bit8s."
        sys.exit(wrong if "tdpbusd wrong" in said else f"The guest did not start:\n{said}")
    print("instructions: with tiles, with vectors; wrong bytes of each")
    for number, tiles, wrong, vectors, wrong_vectors in re.findall(r"call (\d+) (\d+) (\d+) (\d+) (\d+)", said):
        call = calls[int(number)]
        shapes = f"{call.arguments[0].shape} {call.arguments[0].dtype} -> {call.arguments[1].shape} {call.arguments[1].dtype}"
        print(
            f"{call.function:17}{type(call.arguments[2]).__name__:11}{shapes:60}{tiles:>9}{vectors:>9}{wrong:>4}{wrong_vectors:>4}"
        )
    end = re.search(r"end (\d+)", said)
    print("all calls write the same bytes" if end and end[1] == "0" else f"WRONG: {end[1] if end else 'the guest did not end'}")
    sys.exit(0 if end and end[1] == "0" else 1)


if __name__ == "__main__":
    main()
