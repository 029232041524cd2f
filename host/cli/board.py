"""`weakcell board`: query a board, measure its flips once, or serve a virtual one on a TCP port."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weakcell.host.board.boards import BOARDS, DEFAULT_BOARD, list_products, list_virtual_ports
from weakcell.host.cli.completion import complete_memory, complete_port
from weakcell.host.cli.options import DryRun, JsonEvents, Quiet

if TYPE_CHECKING:
    from weakcell.host.board.link.protocol import BoardInfo, ConnectedBoard

_HELP = f"A {list_products()} with Weakcell's firmware, real or virtual."
CALIBRATION_HELP = "The file of `weakcell board calibrate`: voltages become absolute."
PORT_HELP = (
    f"auto, a serial port, a board's USB serial number, socket://HOST:PORT, {list_virtual_ports()} (or with -flash or -usb)."
)
_MISBEHAVE = (
    "hang=P, reset=P, power-loss=P, lock-up=P, noise=P, brown-out=V, ignore-voltage, bypass (the core keeps its own supply), "
    "fall=V/s, floor=V, count-noise=SHARE; with commas."
)
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)

Port = Annotated[str, typer.Option(metavar="PORT", autocompletion=complete_port, help=PORT_HELP)]
FlipsOf = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SPEC",
        autocompletion=complete_memory,
        help="Whose flips a virtual board makes; `vdd` follows its regulator.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of the virtual board's memory.")]


@app.callback(help=_HELP)
def _group() -> None:
    pass


@app.command("list", short_help="List boards, the image each one runs, and what to do next.")
def list_boards(as_json: JsonEvents = False, quiet: Quiet = False) -> None:
    """List boards: on USB serial ports and in BOOTSEL mode, which image each runs, and what to do next."""
    from dataclasses import asdict

    from weakcell.host.board.survey import survey_boards
    from weakcell.host.cli.terminal import emit, errors_as_events, show

    with errors_as_events(as_json):
        found = 0
        for seen in survey_boards():
            found += 1
            if as_json:
                emit("port", **asdict(seen))
                continue
            show(f"{seen.where} ({seen.adapter}): {seen.board or 'no board answers'}")
            if seen.firmware:
                show(f"  runs {seen.firmware}")
            if not quiet:
                show(f"  next: {seen.next_step}", "dim")
    if not (found or as_json):
        show("No board and no USB serial adapter is plugged in.")
    if not (as_json or quiet):
        show(f"Without hardware: --port {list_virtual_ports().replace(' or ', ' or --port ')}.", "dim")


@app.command()
def info(port: Port = "auto", as_json: JsonEvents = False, quiet: Quiet = False) -> None:
    """Show what the board is, its firmware's image, and its counters."""
    from dataclasses import asdict

    from rich.table import Table
    from rich.text import Text

    from weakcell.host.board.link.link import Link
    from weakcell.host.board.link.ports import open_port
    from weakcell.host.board.survey import name_firmware
    from weakcell.host.cli.terminal import emit, errors_as_events, show

    with errors_as_events(as_json), Link(open_port(port)) as link:
        if as_json:
            info = link.info()
            volts = {"minimum_v": link.board.volts(link.board.minimum_code), "nominal_v": link.board.volts(link.board.nominal_code)}
            about = {"celsius": info.celsius, "firmware": name_firmware(link.board.chip, info)}
            found = asdict(link.board) | asdict(info) | volts | about
            emit("board", protocol=found.pop("version"), **found)
            return
        facts = Table.grid(padding=(0, 2, 0, 0))
        for subject, known in _describe(link.board, link.info()):
            facts.add_row(Text(subject, "dim"), Text(known))
        show(facts)
        if not quiet:
            show("The voltage is the regulator's setting; it was not measured. --json gives every register and counter.", "dim")


_ABILITIES = {
    "RETENTION": "retention at a low voltage",
    "COMPARE": "comparing on the board",
    "CRCS": "checksums of pages",
    "READ_LOW": "reading while low",
    "WRITE_LOW": "writing while low",
    "SLEEP": "sleeping while low",
    "COUNT": "seeing whether the voltage falls",
    "CPU_PULSE": "retention with the processor running",
    "FROM_FLASH": "starting from flash by itself",
    "INFER": "computing binarized networks",
    "HAND_OVER": "leaving the core to a bench supply",
}


def _describe(board: ConnectedBoard, info: BoardInfo) -> list[tuple[str, str]]:
    """Return what a user asks of a board: subjects and what is known of them."""
    from weakcell.host.board.link.protocol import Capability
    from weakcell.host.board.survey import name_firmware

    product = BOARDS[board.chip].product if board.chip in BOARDS else "a program on this computer"
    abilities = [_ABILITIES[ability.name or ""] for ability in Capability if board.can(ability)]
    state = "good" if info.regulator_ok else "not good"
    damaged = info.frames_damaged + info.frames_oversize
    low, high = board.volts(board.minimum_code), board.volts(board.nominal_code)
    old = "unknown: this firmware is of protocol version 1; `weakcell firmware flash` brings the newest"
    die = old if info.celsius is None else (
        f"{info.celsius:.0f} °C (not calibrated), ring oscillator {info.ring_count / 32e3:.3f} MHz"
    )  # fmt: skip
    return [
        ("board", f"{product} ({board.chip})"),
        ("firmware", name_firmware(board.chip, info)),
        ("code", f"{info.image_bytes:,} bytes, CRC-32 {info.image_crc:#010x}"),
        ("running", f"for {info.uptime_us / 1e6:.3f} s, boot reason {info.boot_reason:#x}"),
        ("can", ", ".join(abilities)),
        ("voltage", f"set to {board.volts(info.regulator_code):.2f} V, the regulator says {state}; {low:.2f} to {high:.2f} V are "
                    f"possible; lowered {info.pulses:,} times"),
        ("die", die),
        ("memory", f"{board.arena_bytes:,} bytes under test at {board.arena_address:#010x}"),
        ("link", f"{info.frames_good:,} frames received, {damaged:,} damaged; {board.window} requests may be outstanding"),
    ]  # fmt: skip


@app.command(short_help="Turn the chip's voltages into absolute ones by a meter.")
def calibrate(
    reading: Annotated[float, typer.Option(metavar="VOLTS", help="What a meter shows on DVDD while the board is idle.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE.json", help="Where the reading is kept, for --calibration.", show_default=False)
    ],
    port: Port = "auto",
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Turn the voltages that the chip shows into absolute ones, by one reading of a meter.

    Nothing is lowered. The error of the regulator is taken to be the same share of every step.
    """
    from dataclasses import asdict

    from weakcell.host.board.link.link import Link
    from weakcell.host.board.link.meter import take_reading
    from weakcell.host.board.link.ports import open_port
    from weakcell.host.cli.terminal import emit, errors_as_events, show
    from weakcell.memmodels.atomic_files import check_writable

    check_writable(out)
    with errors_as_events(as_json), Link(open_port(port)) as link:
        taken, low = take_reading(link, reading), link.board.volts(link.board.minimum_code)
        taken.save(out)
    if as_json:
        emit("meter", file=str(out), scale=taken.scale, **asdict(taken))
        return
    show(f"The core has {taken.volts:.3f} V where the regulator is set to {taken.nominal_v:.2f} V: {100 * taken.scale:.1f} %.")
    show(f"The lowest step, {low:.2f} V, is then about {low * taken.scale:.3f} V.")
    if not quiet:
        show(f"next: weakcell characterize --calibration {out}, or board measure", "dim")


@app.command(short_help="Lower the voltage once and count which cells flipped.")
def measure(
    port: Port = "auto",
    vdd: Annotated[float, typer.Option(help="Core voltage while low, V; steps of 0.05, never above nominal.")] = 1.10,
    dwell_ms: Annotated[float, typer.Option(help="How long it stays low, ms.")] = 10.0,
    pattern: Annotated[str, typer.Option(help="zeros, ones, checkerboard, address or random.")] = "random",
    repeats: Annotated[int, typer.Option(min=1, help="Pulses.")] = 3,
    memory: FlipsOf = None,
    seed: Seed = 0,
    calibration: Annotated[Path | None, typer.Option(metavar="FILE.json", help=CALIBRATION_HELP, show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Also write the flipped cells here, a row each.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """Fill the arena, lower the voltage, restore it, and compare on the board: which cells flipped, for each pulse."""
    from weakcell.host.board.characterization.pulse_file import write_pulses
    from weakcell.host.board.characterization.supply import find_code
    from weakcell.host.board.characterization.voltmeter import calibrate, see_voltage
    from weakcell.host.board.link.link import Link
    from weakcell.host.board.link.meter import load_reading
    from weakcell.host.board.link.ports import open_port
    from weakcell.host.board.link.protocol import MAX_DWELL_US, Pattern
    from weakcell.host.cli.terminal import emit, errors_as_events, show, show_plan
    from weakcell.memmodels.atomic_files import check_writable
    from weakcell.memmodels.errors import UsageError

    if pattern.upper() not in Pattern.__members__:
        known = ", ".join(name.lower() for name in Pattern.__members__)
        raise UsageError(f"--pattern {pattern}", "there is no such pattern", f"Choose {known}")
    if not 0 <= dwell_ms * 1000 <= MAX_DWELL_US:
        raise UsageError(f"--dwell-ms {dwell_ms:g}", f"it is not within 0 and {MAX_DWELL_US // 1000}", "Give a time in that range")
    chosen_pattern, in_every_pulse = Pattern[pattern.upper()], None
    measured: list[tuple[int, float, int, set[int]]] = []
    if out is not None:
        check_writable(out)
    reading = None if calibration is None else load_reading(calibration)
    with errors_as_events(as_json), Link(open_port(port, memory, seed)) as link:
        if reading is not None:
            reading.check(link)
        board, code = link.board, find_code(link.board, vdd)
        cells = board.arena_bytes * 8
        if dry_run:
            lowered = {"pulses": repeats, "commanded_v": vdd, "dwell_us": round(dwell_ms * 1000), "cells": cells}
            text = f"{board.chip}: {repeats} pulses of {dwell_ms:g} ms to {vdd:.2f} V, {cells:,} cells."
            show_plan(text, as_json, chip=board.chip, **lowered)
            return
        calibrate(link, code, dwell_ms / 1000)
        for repeat in range(repeats):
            link.fill(0, board.pages, chosen_pattern, repeat)
            if wrong := link.compare(0, board.pages, chosen_pattern, repeat):
                from weakcell.host.board.errors import BoardError

                raise BoardError("Filling the arena at nominal voltage", f"{len(wrong)} cells differ", "Check the supply")
            pulse = link.pulse(code, round(dwell_ms * 1000))
            seen = see_voltage(link, pulse)
            measured_v = None if seen is None or reading is None else seen * reading.scale
            flipped = set(link.compare(0, board.pages, chosen_pattern, repeat))
            in_every_pulse = flipped if in_every_pulse is None else in_every_pulse & flipped
            measured.append((repeat + 1, board.volts(pulse.low_code), pulse.dwell_us, flipped))
            if as_json:
                register = board.volts(pulse.low_code)
                emit(
                    "pulse",
                    pulse=repeat + 1,
                    commanded_v=vdd,
                    register_v=register,
                    dwell_us=pulse.dwell_us,
                    seen_v=seen,
                    measured_v=measured_v,
                    celsius=pulse.celsius,
                    cells=cells,
                    flipped=len(flipped),
                )
                continue
            core = "core not seen" if seen is None else f"core about {seen:.2f} V"
            core += "" if measured_v is None else f" ({measured_v:.3f} V by the meter)"
            show(
                f"pulse {repeat + 1}: commanded {vdd:.2f} V, register {board.volts(pulse.low_code):.2f} V, {core}, "
                f"{pulse.dwell_us / 1000:.3f} ms: {len(flipped)} of {cells} cells flipped ({len(flipped) / cells:.3g})"
            )
        if out is not None:
            write_pulses(out, measured)
        if as_json:
            counters = {"resent": link.counters.resent, "damaged": link.counters.frames_damaged}
            emit("done", in_every_pulse=len(in_every_pulse or ()), **counters)
            return
        show(f"in every pulse: {len(in_every_pulse or ())} cells; core voltages by the ring oscillator, relative to the steps")
        if not quiet:
            frames = f"{link.counters.resent} frames sent again, {link.counters.frames_damaged} damaged"
            show(f"link: {frames}; none of them counts as a flip")


@app.command(short_help="Serve a virtual board on a TCP port and a pseudo-terminal.")
def serve(
    virtual: Annotated[str, typer.Option(metavar="CHIP", help=f"{' or '.join(reversed(BOARDS))}.")] = DEFAULT_BOARD,
    tcp: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="TCP port; 0 for any.")] = 0,
    address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on. Any other than this computer's own needs --yes.")
    ] = "127.0.0.1",
    yes: Annotated[bool, typer.Option("--yes", help="Let other computers talk to the board.")] = False,
    memory: FlipsOf = None,
    reads: Annotated[
        str | None,
        typer.Option(metavar="SPEC", autocompletion=complete_memory, help="What reads wrongly while the voltage is low."),
    ] = None,
    writes: Annotated[
        str | None,
        typer.Option(metavar="SPEC", autocompletion=complete_memory, help="What is stored wrongly while the voltage is low."),
    ] = None,
    misbehave: Annotated[str, typer.Option(metavar="HOW", help=_MISBEHAVE)] = "",
    image: Annotated[str, typer.Option(help="flash: comes back after a loss of power. ram: does not.")] = "flash",
    seed: Seed = 0,
    as_json: JsonEvents = False,
    quiet: Quiet = False,
) -> None:
    """A virtual board on a TCP port and a pseudo-terminal, so that any serial program can talk to it.

    There is no authentication: whoever reaches the port talks to the board. Up to 256 clients take turns.
    """
    from weakcell.host.board.firmware.build import IMAGE_KINDS
    from weakcell.host.board.virtual.opening import open_virtual_board
    from weakcell.host.board.virtual.serving import Endpoint, is_loopback
    from weakcell.host.board.virtual.serving import serve as serve_board
    from weakcell.host.cli.terminal import emit, show
    from weakcell.memmodels.errors import UsageError

    if image not in IMAGE_KINDS:
        raise UsageError(f"--image {image}", "there is no such image", f"Choose {' or '.join(IMAGE_KINDS)}")
    if not (yes or is_loopback(address)):
        found = "other computers may reach it, and the board asks nobody who they are"
        raise UsageError(f"Listening on {address}", found, "Give --yes if that is meant, or leave --address out")

    def tell(offer: Endpoint) -> None:
        if as_json:
            emit("serving", chip=virtual, address=address, port=offer.port, terminal=offer.terminal or None)
            return
        also = f" and {offer.terminal}" if offer.terminal else ""
        host = f"[{address}]" if ":" in address else address
        show(f"{virtual} at socket://{host}:{offer.port}{also}{'' if quiet else ', until Ctrl-C'}")

    board = open_virtual_board(virtual, memory, seed, reads=reads, writes=writes, misbehave=misbehave, image=image)
    serve_board(board, tcp, tell, address)
