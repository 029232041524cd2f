"""The records in `BOARDS`: they agree with the firmware, and a new one shows up everywhere without further changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from weakcell.host.board.boards import BOARDS, NATIVE_CHIP_ID, BoardType, Regulator, chip_name
from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import IMAGE_KINDS, image_path
from weakcell.host.board.firmware.drives import Drive, find_drive, read_drive
from weakcell.host.board.firmware.uf2 import make_uf2_blocks, read_uf2
from weakcell.host.board.link.link import Link
from weakcell.host.board.memory.spec import technology_of
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.errors import UsageError

ROOT = Path(__file__).parents[2]
FILES = {"boot.S", "boot.ld", "chip.c", "chip.h", "entry.S", "image.ld"}
NEW = replace(
    BOARDS["rp2350"],
    name="rp2359",
    product="Pico 9",
    chip_id=9,
    uf2_family=0x12345678,
    drive_board_id="RP2359",
    regulator=Regulator(minimum_code=0, nominal_code=12, code_bits=5, base_mv=500, needs_unlock=True),
)
WITH_NEW = """
from dataclasses import replace
from weakcell.host.board.boards import BOARDS
BOARDS["rp2359"] = replace(BOARDS["rp2350"], name="rp2359", product="Pico 9", chip_id=9)
from weakcell.host.cli import main
main()
"""


@pytest.fixture
def new_board(monkeypatch: pytest.MonkeyPatch) -> Iterator[BoardType]:
    """A third board, registered by its record alone."""
    monkeypatch.setitem(BOARDS, NEW.name, NEW)
    return NEW


# --- the records agree with the firmware ---------------------------------------------------------------------------------------


def test_the_folders_of_the_firmware_are_the_boards() -> None:
    folders = {
        path.name: {file.name for file in path.iterdir()} for path in (ROOT / "firmware" / "board").iterdir() if path.is_dir()
    }
    assert folders == dict.fromkeys(BOARDS, FILES)


def test_the_shipped_images_are_those_of_the_boards() -> None:
    paths = {image_path(chip, kind) for chip in BOARDS for kind in IMAGE_KINDS}
    assert set(next(iter(paths)).parent.glob("*.uf2")) == paths


def test_a_record_agrees_with_what_the_firmware_says(chip: str) -> None:
    expected, board = BOARDS[chip], Link(VirtualBoard(chip)).board
    assert (board.chip, board.arena_address, board.arena_bytes) == (chip, expected.map.sram, expected.map.arena_bytes)
    assert (board.minimum_code, board.nominal_code) == (expected.regulator.minimum_code, expected.regulator.nominal_code)
    assert board.volts(board.nominal_code) == expected.regulator.nominal_v


def test_names_and_ids_are_unique() -> None:
    boards = list(BOARDS.values())
    assert [board.name for board in boards] == list(BOARDS)
    for values in ([board.chip_id for board in boards] + [NATIVE_CHIP_ID], [board.uf2_family for board in boards],
                   [board.drive_board_id for board in boards]):  # fmt: skip
        assert len(set(values)) == len(values)


# --- a third board -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("board", "--help"), "Pico 9"),
        (("board", "info", "--help"), "virtual:rp2359"),
        (("board", "serve", "--help"), "rp2359"),
        (("characterize", "--help"), "virtual:rp2359"),
        (("characterize", "--help"), "RP2359"),
        (("firmware", "--help"), "Pico 9"),
        (("firmware", "build", "--help"), "rp2359"),
    ],
)
def test_the_help_names_a_new_board(command: tuple[str, ...], expected: str) -> None:
    help_text = subprocess.run([sys.executable, "-c", WITH_NEW, *command], capture_output=True, text=True, check=True).stdout
    assert expected in " ".join(help_text.replace("│", " ").split())


def test_error_messages_name_a_new_board(new_board: BoardType, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as no_board:
        VirtualBoard("rp9999")
    with pytest.raises(UsageError) as no_drive:
        read_drive(tmp_path)
    assert new_board.name in no_board.value.do
    assert new_board.name.upper() in no_drive.value.found


def test_the_drive_and_the_protocol_know_a_new_board(new_board: BoardType, tmp_path: Path) -> None:
    (tmp_path / "INFO_UF2.TXT").write_text(f"UF2 Bootloader v1.0\nBoard-ID: {new_board.drive_board_id}\n")
    assert find_drive([tmp_path]) == Drive(tmp_path, new_board.name)
    assert chip_name(new_board.chip_id) == new_board.name


def test_the_memory_accepts_the_voltages_of_a_new_board(new_board: BoardType) -> None:
    vdd = next(condition for condition in technology_of("auto").conditions if condition.name == "vdd")
    assert (vdd.low, vdd.high) == (0.50, 1.10)
    assert new_board.regulator.nearest_code(0.65) == 3


def test_a_virtual_new_board_runs_images_of_its_own_family_only(new_board: BoardType) -> None:
    pytest.importorskip("unicorn", reason="pip install weakcell[virtual]")
    image = image_path("rp2350").read_bytes()
    with pytest.raises(BoardError, match="virtual rp2359"):
        VirtualBoard(new_board.name, image=image)
    _, first, data = read_uf2(image)
    own = b"".join(make_uf2_blocks((first, data), new_board.uf2_family))
    assert Link(VirtualBoard(new_board.name, image=own)).board.pages == new_board.map.arena_bytes // 256
