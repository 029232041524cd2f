"""The images: what ships is what the sources give, and what the boot ROMs accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.board.build import CHIPS, build, can_build, image_path, read_uf2, write_image
from memmodels.errors import InputError

START = {"rp2040": 0x20040000, "rp2350": 0x20080000}


@pytest.mark.parametrize("chip", CHIPS)
def test_shipped_images_are_built_from_these_sources(chip: str, tmp_path: Path) -> None:
    if (reason := can_build()) is not None:
        pytest.skip(reason)
    shipped = image_path(chip).read_bytes()
    assert write_image(CHIPS[chip], tmp_path).read_bytes() == shipped, "run `weakcell firmware build --out host/board/images`"
    assert build(CHIPS[chip]) == shipped


@pytest.mark.parametrize("chip", CHIPS)
def test_images_fit_the_small_banks(chip: str) -> None:
    family, first, data = read_uf2(image_path(chip).read_bytes())
    assert (family, first) == (CHIPS[chip].family, START[chip])
    assert len(data) <= 5 * 1024


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
