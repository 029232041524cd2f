"""What the images are made of, and what they touch while the voltage is low.

The oracles are the ARMv6-M reference manual's encodings (chapter A5) and the addresses that Unicorn sees.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.characterization.experiments import REQUIRED_CAPABILITIES, Experiment, ReportMode, Setting, run_experiment
from weakcell.host.board.firmware import build
from weakcell.host.board.firmware.build import IMAGE_KINDS
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Pattern
from weakcell.host.board.virtual.usb_port import connect_usb
from weakcell.host.board.virtual.virtual_board import VirtualBoard

CODE = 6


def link_image(chip: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Build the image that ships, and return its linked program with symbols, which change no byte of the image."""
    programs: list[bytes] = []
    load, run = build.load_elf, subprocess.run

    def keep(elf: bytes) -> dict[int, bytes]:
        programs.append(elf)
        return load(elf)

    def run_with_symbols(command: list[str], **rest: Any) -> Any:
        return run(["-g" if each == "-g0" else each for each in command], **rest)

    monkeypatch.setattr(build, "load_elf", keep)
    monkeypatch.setattr(subprocess, "run", run_with_symbols)
    assert build.build(BOARDS[chip], kind) == build.image_path(chip, kind).read_bytes()
    return programs[0]


def find_code(elf: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each stretch of instructions by its address: mapping symbols tell them from data (ELF for the Arm Architecture)."""
    (offset,) = struct.unpack_from("<I", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 46)
    sections = [struct.unpack_from("<10I", elf, offset + size * each) for each in range(count)]
    (symbols,) = (section for section in sections if section[1] == 2)
    names = sections[symbols[6]][4]
    marks: dict[int, dict[int, str]] = {}
    functions: list[tuple[int, int]] = []
    for at in range(symbols[4], symbols[4] + symbols[5], 16):
        name, value, extent, info, _, section = struct.unpack_from("<IIIBBH", elf, at)
        text = elf[names + name : elf.index(b"\0", names + name)].decode()
        if text[:2] in ("$t", "$d", "$a"):
            marks.setdefault(section, {})[value] = text[:2]
        elif info & 15 == 2 and extent:  # a function of C; constants that follow the last one have no mark
            functions.append((value & ~1, (value & ~1) + extent))
    for number, marked in marks.items():
        kind, flags, address, file_offset, length = sections[number][1:6]
        if not flags & 4 or kind != 1:
            continue
        starts = sorted(marked)
        for start, end in zip(starts, [*starts[1:], address + length], strict=True):
            assert marked[start] != "$a", "no code of the other instruction set"
            if marked[start] == "$t":
                last = max((stop for begin, stop in functions if start <= begin < end), default=end)
                yield start, elf[file_offset + start - address : file_offset + min(last, end) - address]


def why_not_smallest_core(first: int, second: int) -> str:
    """Return why an instruction is not one of ARMv6-M; second: the halfword behind it."""
    if first >> 11 in (0b11101, 0b11111):
        return "a wide instruction of ARMv7-M, or of the floating-point unit"
    if first >> 11 == 0b11110:
        call = second >> 14 == 3 and second >> 12 & 1
        return "" if call or first >> 4 in (0xF3B, 0xF38, 0xF3E) else "a wide instruction that is no call, barrier, MSR or MRS"
    if first >> 8 in (0xDE, 0xDF, 0xBE):
        return "UDF, SVC or BKPT"
    if first >> 8 in (0xB1, 0xB3, 0xB9, 0xBB) or (first >> 8 == 0xBF and first & 15):
        return "CBZ, CBNZ or IT"
    return ""


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@pytest.mark.parametrize("chip", BOARDS)
def test_every_instruction_is_of_the_smallest_core_which_has_no_floating_point(
    chip: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := build.why_not_buildable()) is not None:
        pytest.skip(reason)
    total = 0
    for address, code in find_code(link_image(chip, kind, monkeypatch)):
        halfwords = [*struct.unpack(f"<{len(code) // 2}H", code[: len(code) // 2 * 2]), 0]
        at = 0
        while at < len(halfwords) - 1:
            reason = why_not_smallest_core(halfwords[at], halfwords[at + 1])
            assert not reason, f"{address + 2 * at:#x}: {halfwords[at]:04x} {halfwords[at + 1]:04x} is {reason}"
            at += 2 if halfwords[at] >> 11 in (0b11101, 0b11110, 0b11111) else 1
        total += len(code)
    assert total > 4000


def test_the_check_knows_what_it_looks_for() -> None:
    """Encodings from the reference manuals: VADD.F32 S0,S0,S1; UDIV R0,R0,R1; CBZ R0; IT EQ; BL; DSB; MSR PRIMASK."""
    forbidden = [(0xEE30, 0x0A20), (0xFBB0, 0xF0F1), (0xB108, 0), (0xBF08, 0), (0xDE00, 0), (0xE92D, 0x4FF0)]
    allowed = [(0xF000, 0xF801), (0xF3BF, 0x8F4F), (0xF380, 0x8810), (0xBF30, 0), (0x4770, 0), (0xBD10, 0)]
    assert all(why_not_smallest_core(*pair) for pair in forbidden)
    assert not any(why_not_smallest_core(*pair) for pair in allowed)


@pytest.mark.parametrize("kind", [*IMAGE_KINDS, "usb"])
def test_nothing_but_the_small_banks_is_used_while_low(chip: str, kind: str) -> None:
    """Code and stack, in every experiment; reads and writes of the arena in those that are for it."""
    board = VirtualBoard(chip, image="ram" if kind == "ram" else "flash")
    machine, where, nominal = board.machine, board.type.map, board.type.regulator.nominal_code
    bank, end = where.sram + where.arena_bytes, where.sram + where.sram_bytes
    used: dict[str, int] = dict.fromkeys(("blocks", "outside", "flash", "arena"), 0)

    def block(engine: Any, address: int, size: int, _data: Any) -> None:
        if machine.supply.code < nominal:
            stack = engine.reg_read(machine._arm.UC_ARM_REG_SP)
            used["blocks"] += 1
            used["outside"] += not (bank <= address and address + size <= end and bank < stack <= end)

    def access(_engine: Any, _kind: int, address: int, _size: int, _value: int, _data: Any) -> None:
        if machine.supply.code < nominal:
            used["flash"] += address < where.sram
            used["arena"] += where.sram <= address < bank

    def watch() -> None:
        unicorn = machine._unicorn
        machine._engine.hook_add(unicorn.UC_HOOK_BLOCK, block)
        kinds = unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE
        machine._engine.hook_add(kinds, access, begin=0, end=bank - 1)
        machine._engine.ctl_flush_tb()

    link = Link(connect_usb(board) if kind == "usb" else board)
    link.info()
    watch()
    for experiment in Experiment:
        if not link.board.can(REQUIRED_CAPABILITIES[experiment]):
            continue
        used["arena"] = 0
        for report in ReportMode:
            run_experiment(link, Setting(experiment, CODE, 300), Pattern.RANDOM, 3, range(2), report)
        assert bool(used["arena"]) == (experiment in (Experiment.READ, Experiment.WRITE)), experiment
        watch()  # SLEEP began with a new engine
    link.cpu_pulse(CODE, 300)
    assert used["blocks"] > 100
    assert (used["outside"], used["flash"]) == (0, 0)
    assert board.resets == 0
