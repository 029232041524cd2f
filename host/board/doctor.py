"""What is installed, which ports and boards answer, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import CHIPS, can_build, image_path
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.ports import open_port, usb_ports

EXTRAS = {
    "board": (("pyserial", "cobs"), "talking to a board"),
    "virtual": (("unicorn",), "virtual boards"),
    "supply": (("pyvisa", "pyvisa-py"), "bench supplies over SCPI"),
    "train": (("torch", "onnxscript", "onnxruntime"), "training and export"),
    "cluster": (("dask", "distributed"), "campaigns on a cluster"),
}
State = Literal["ok", "missing", "silent"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. do: what to do about it, empty if all is well."""

    what: str
    state: State
    found: str
    do: str = ""


def examine() -> Iterator[Finding]:
    """Look at packages, images, ports and boards, one after the other; a port is asked for a second or two."""
    for extra in EXTRAS:
        yield package(extra)
    yield images()
    yield virtual()
    yield from ports()


def package(extra: str) -> Finding:
    """Whether the packages of an extra are installed."""
    names, purpose = EXTRAS[extra]
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(purpose, "missing", f"{', '.join(missing)} not installed", f"pip install 'weakcell[{extra}]'")
    return Finding(purpose, "ok", ", ".join(found))


def images() -> Finding:
    """Whether the firmware's images are there, and whether they could be built again."""
    absent = [chip for chip in CHIPS if not image_path(chip).exists()]
    if absent:
        return Finding("firmware images", "missing", f"none for {', '.join(absent)}", "Install the package again")
    reason = can_build()
    return Finding(
        "firmware images", "ok", f"{', '.join(CHIPS)}; {'can be built here' if reason is None else f'as shipped: {reason}'}"
    )


def virtual() -> Finding:
    """Whether a virtual board starts and answers."""
    return _asked("virtual:rp2350", "virtual board", "See its line above")


def ports() -> Iterator[Finding]:
    """Every USB serial port, and what answers there."""
    try:
        found = usb_ports()
    except BoardError as error:
        yield Finding("serial ports", "missing", error.found, error.do)
        return
    if not found:
        yield Finding(
            "serial ports", "missing", "no USB serial adapter is plugged in", "Plug in a 3.3 V adapter, or use virtual:rp2350"
        )
    for port, description in found:
        wiring = "Check that the image runs (copy it again after unplugging), RX to GP0, TX to GP1, GND to GND"
        yield _asked(port, f"{port} ({description})", wiring)


def _asked(port: str, what: str, do: str) -> Finding:
    """What a board says of itself."""
    try:
        with Link(open_port(port), timeout_s=0.3, retries=3) as link:
            board, told = link.board, link.info()
    except BoardError as error:
        return Finding(what, "silent", error.found, error.do if port.startswith("virtual") or "Opening" in error.asked else do)
    low, high = board.volts(board.minimum_code), board.volts(board.nominal_code)
    found = f"{board.chip}, {board.arena_bytes // 1024} KiB, {low:.2f} to {high:.2f} V, boot reason {told.boot_reason}"
    return Finding(what, "ok", found)
