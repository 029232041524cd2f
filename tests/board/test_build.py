"""The images: those that ship are those of the sources, and the boot ROMs accept them."""

from __future__ import annotations

from pathlib import Path

import pytest

from weakcell.host.board.boards import BOARDS
from weakcell.host.board.firmware.build import (
    IMAGE_KINDS,
    MAX_IMAGE,
    build,
    image_path,
    why_not_buildable,
    write_image,
)
from weakcell.host.board.firmware.uf2 import BOOT2_BYTES, crc32_mpeg2, read_uf2
from weakcell.host.board.link.link import Link
from weakcell.host.board.link.protocol import Capability
from weakcell.host.board.virtual.virtual_board import VirtualBoard
from weakcell.memmodels.errors import InputError


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@pytest.mark.parametrize("chip", BOARDS)
def test_shipped_images_are_built_from_these_sources(chip: str, kind: str, tmp_path: Path) -> None:
    if (reason := why_not_buildable()) is not None:
        pytest.skip(reason)
    shipped = image_path(chip, kind).read_bytes()
    written = write_image(BOARDS[chip], kind, tmp_path)
    assert written.read_bytes() == shipped, "run `weakcell firmware build --out host/board/firmware/images`"
    assert written.name == image_path(chip, kind).name


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_gcc_builds_images_that_run(chip: str, kind: str) -> None:
    if (reason := why_not_buildable("gcc")) is not None:
        pytest.skip(reason)
    link = Link(VirtualBoard(chip, image=build(BOARDS[chip], kind, "gcc")))
    assert link.board.can(Capability.FROM_FLASH) == (kind == "flash")
    assert link.pulse(6, 1000).image_crc == link.info().image_crc


@pytest.mark.parametrize("chip", BOARDS)
def test_images_fit_the_small_banks(chip: str) -> None:
    family, first, data = read_uf2(image_path(chip).read_bytes())
    assert (family, first) == (BOARDS[chip].uf2_family, BOARDS[chip].image_address)
    assert len(data) <= MAX_IMAGE


@pytest.mark.parametrize("chip", BOARDS)
def test_flash_images_are_a_second_stage_and_the_program(chip: str) -> None:
    family, first, data = read_uf2(image_path(chip, "flash").read_bytes())
    assert (family, first) == (BOARDS[chip].uf2_family, BOARDS[chip].map.flash)
    assert BOOT2_BYTES + MAX_IMAGE < len(data) <= BOOT2_BYTES + 2 * MAX_IMAGE, "behind the image: USB, which stays in flash"
    if BOARDS[chip].boot2_address is not None:
        assert int.from_bytes(data[252:256], "little") == crc32_mpeg2(data[:252])
    else:
        assert data.index(bytes.fromhex("d3deffff 42012110 03020000 00000010")) < 4096


def test_the_check_value_of_crc32_mpeg2() -> None:
    """The catalogue of parametrised CRC algorithms gives 0376e6e7h for the nine digits."""
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7


def test_the_rp2350_image_has_its_block_in_the_first_4_kb() -> None:
    _, first, data = read_uf2(image_path("rp2350").read_bytes())
    at = data.index(bytes.fromhex("d3deffff"))
    block = data[at : at + 28]
    assert at % 4 == 0
    assert at < 4096
    assert block == bytes.fromhex("d3deffff 42012110 03020000") + first.to_bytes(4, "little") + bytes.fromhex(
        "ff030000 00000000 793512ab"
    )


@pytest.mark.parametrize("at", [0, 8, 16, 20, 24, 508])
def test_damaged_images_are_refused(at: int) -> None:
    data = bytearray(image_path("rp2040").read_bytes())
    data[at] ^= 1
    with pytest.raises(InputError, match="block 0"):
        read_uf2(bytes(data))
    with pytest.raises(InputError):
        read_uf2(bytes(data[:700]))
