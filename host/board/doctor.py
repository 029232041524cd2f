"""Check what is installed, what the processor has, which ports and boards answer, and say what to do about the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from weakcell.host.board.boards import BOARDS, DEFAULT_BOARD
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import image_path, why_not_buildable
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import list_usb_ports, open_port
from weakcell.memmodels.native.tile_permission import choose_tiles

EXTRAS = {
    "board": (("pyserial", "cobs"), "talking to a board"),
    "virtual": (("unicorn",), "virtual boards"),
    "supply": (("pyvisa", "pyvisa-py"), "bench supplies over SCPI"),
    "train": (("torch", "onnxscript", "onnxruntime"), "training and export"),
    "cluster": (("dask", "distributed"), "campaigns on a cluster"),
}
State = Literal["ok", "missing", "silent"]
_VIRTUAL = f"virtual:{DEFAULT_BOARD}"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: was checked.
        state: `ok`, `missing`, or `silent` for a port that does not answer.
        found: what the check found.
        do: what to do about it; empty if all is well.
    """

    what: str
    state: State
    found: str
    do: str = ""


def run_checks() -> Iterator[Finding]:
    """Check packages, matrix tiles, images, ports and boards one after the other; a port takes a second or two."""
    for extra in EXTRAS:
        yield check_packages(extra)
    yield check_tiles()
    yield check_images()
    yield check_virtual_board()
    yield from check_ports()


def check_packages(extra: str) -> Finding:
    """Check that the packages of an extra are installed."""
    names, purpose = EXTRAS[extra]
    installed, missing = [], []
    for name in names:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(purpose, "missing", f"{', '.join(missing)} not installed", f"pip install 'weakcell[{extra}]'")
    return Finding(purpose, "ok", ", ".join(installed))


def check_tiles() -> Finding:
    """Check whether matrix products are computed in the tiles of AMX."""
    choice = choose_tiles()
    if choice.tiles != "none":
        return Finding("matrix tiles", "ok", {"amx": "AMX is used", "software": "computed by loops, for tests"}[choice.tiles])
    do = "See `Matrix tiles` in emulator/kernels/README.md: results are the same" if choice.possible else ""
    return Finding("matrix tiles", "ok", f"vectors are used: {choice.reason}", do)


def check_images() -> Finding:
    """Check that the firmware's images are there, and say whether they could be rebuilt."""
    absent = [chip for chip in BOARDS if not image_path(chip).exists()]
    if absent:
        return Finding("firmware images", "missing", f"none for {', '.join(absent)}", "Install the package again")
    reason = why_not_buildable()
    origin = "can be built here" if reason is None else f"as shipped: {reason}"
    return Finding("firmware images", "ok", f"{', '.join(BOARDS)}; {origin}")


def check_virtual_board() -> Finding:
    """Check that a virtual board starts and answers."""
    return _check_port(_VIRTUAL, "virtual board", "See its line above")


def check_ports() -> Iterator[Finding]:
    """Check every USB serial port."""
    try:
        ports = list_usb_ports()
    except BoardError as error:
        yield Finding("serial ports", "missing", error.found, error.do)
        return
    if not ports:
        do = f"Plug a board in, or use {_VIRTUAL}"
        yield Finding("serial ports", "missing", "no board and no USB serial adapter is plugged in", do)
    for port in ports:
        what = f"{port.device} ({port.description})"
        if port.is_own_usb:
            do = "Hold BOOTSEL while you plug it in, then weakcell firmware flash"
            yield Finding(what, "silent", "this is the Pico's own USB, with another program than Weakcell's firmware", do)
            continue
        wiring = "Check that the image runs (copy it again after unplugging), RX to GP0, TX to GP1, GND to GND"
        yield _check_port(port.device, what, wiring)


def _check_port(port: str, what: str, do: str) -> Finding:
    try:
        with Link(open_port(port), timeout_s=0.3, retries=3) as link:
            board, info = link.board, link.info()
    except BoardError as error:
        return Finding(what, "silent", error.found, error.do if port.startswith("virtual") or "Opening" in error.asked else do)
    low, high = board.volts(board.minimum_code), board.volts(board.nominal_code)
    found = f"{board.chip}, {board.arena_bytes // 1024} KiB, {low:.2f} to {high:.2f} V, boot reason {info.boot_reason}"
    return Finding(what, "ok", found)
