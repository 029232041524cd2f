"""`weakcell firmware flash`: the right image for the drive, and no choice between two drives."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from weakcell.host.board.errors import BoardError
from weakcell.host.board.firmware.build import image_path
from weakcell.host.board.firmware.drives import Drive, _read_mount_table, copy_image, find_drive
from weakcell.host.cli import app

INFO = "UF2 Bootloader v{version}\nModel: {model}\nBoard-ID: {board}\n"


def drive(parent: Path, name: str, board: str) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "INFO_UF2.TXT").write_text(INFO.format(version="3.0", model="Raspberry Pi RP2", board=board))
    return folder


@pytest.mark.parametrize("kind", ["ram", "flash"])
@pytest.mark.parametrize(("board", "chip"), [("RPI-RP2", "rp2040"), ("RP2350", "rp2350")])
def test_the_image_of_the_chip_that_the_drive_names(tmp_path: Path, board: str, chip: str, kind: str) -> None:
    folder = drive(tmp_path, "drive", board)
    (tmp_path / "other").mkdir()
    found = find_drive([tmp_path / "other", tmp_path / "missing", folder])
    assert found == Drive(folder, chip)
    name = copy_image(found, kind)
    assert (folder / name).read_bytes() == image_path(chip, kind).read_bytes()


def test_two_drives_are_refused_and_both_named(tmp_path: Path) -> None:
    first, second = drive(tmp_path, "a", "RPI-RP2"), drive(tmp_path, "b", "RP2350")
    with pytest.raises(BoardError, match="several") as refused:
        find_drive([first, second])
    assert f"{first} (rp2040)" in str(refused.value)
    assert f"{second} (rp2350)" in str(refused.value)
    assert [path.name for path in second.iterdir()] == ["INFO_UF2.TXT"]


def test_no_drive_and_drives_of_other_boards(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="BOOTSEL"):
        find_drive([drive(tmp_path, "other", "SAMD21G18A-Feather-v0"), tmp_path])


def test_the_mount_table_is_read(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text("proc /proc proc rw 0 0\n/dev/sda1 /media/me/RPI-RP2 vfat rw 0 0\n/dev/sdb1 /media/A\\040B vfat rw 0 0\n")
    assert list(_read_mount_table(table)) == [Path("/media/me/RPI-RP2"), Path("/media/A B")]


def test_the_command(tmp_path: Path) -> None:
    folder = drive(tmp_path, "drive", "RP2350")
    done = CliRunner().invoke(app, ["firmware", "flash", "--drive", str(folder), "--image", "flash"])
    assert (done.exit_code, (folder / "rp2350-flash.uf2").exists()) == (0, True), done.output
    assert CliRunner().invoke(app, ["firmware", "flash", "--drive", str(tmp_path)]).exit_code == 2
    assert CliRunner().invoke(app, ["firmware", "flash", "--drive", str(folder), "--image", "rom"]).exit_code == 2


def test_an_image_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A folder that only looks like a drive."""
    folder, victim = drive(tmp_path, "drive", "RP2350"), tmp_path / "victim"
    victim.write_text("mine")
    (folder / image_path("rp2350", "ram").name).symlink_to(victim)
    with pytest.raises(BoardError):
        copy_image(Drive(folder, "rp2350"), "ram")
    assert victim.read_text() == "mine"
