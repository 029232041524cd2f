"""The report in a browser and every figure look like the pictures in `pictures/`, which people have looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from tests.host import pictures

made_here = pytest.mark.skipif(
    not mpl.__version__.startswith(f"{pictures.MATPLOTLIB}."),
    reason=f"the pictures were drawn by Matplotlib {pictures.MATPLOTLIB}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.make_campaign(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if pictures.find_browser() is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=pictures.find_browser(), args=["--no-sandbox"])
        yield opened
        opened.close()


def reference(name: str) -> Image.Image:
    return Image.open(pictures.REFERENCES / f"{name}.webp")


@made_here
@pytest.mark.parametrize("name", pictures.PAGES)
def test_page_looks_as_before(browser: Any, folder: Path, name: str) -> None:
    picture = pictures.photograph(browser, folder / "report.html", name)
    assert pictures.compare(picture, reference(name)) < pictures.MOST_CHANGED


@made_here
def test_figures_look_as_before(folder: Path) -> None:
    """Every result object, figure for papers and published law, against its picture; no picture is left over."""
    changed, names = {}, set(pictures.PAGES)
    for name, draw in pictures.figures(folder):
        names.add(name)
        draw(folder / "figure.png")
        share = pictures.compare(Image.open(folder / "figure.png"), reference(name))
        if share >= pictures.MOST_CHANGED:
            changed[name] = share
    assert not changed, f"{changed}; look at them: python -m tests.host.pictures {' '.join(changed)}"
    assert names == {path.stem for path in pictures.REFERENCES.iterdir()}


def test_comparison_sees_what_a_reader_sees() -> None:
    """It sees another theme, another colour of a curve, and a covered, moved or missing part; it accepts a shift by a pixel."""
    light, figure = (reference(name).convert("RGB") for name in ("page-1280-light", "emulate"))
    assert pictures.compare(reference("page-1280-dark"), light) > 0.5
    assert pictures.compare(light.crop((0, 0, light.width, light.height * 9 // 10)), light) == 1
    pixels = np.asarray(figure)
    recoloured, covered = pixels.copy(), pixels.copy()
    blue = pixels[:, :, 2] > pixels[:, :, 0].astype(int) + 40
    recoloured[blue] = recoloured[blue][:, ::-1]
    covered[30:45, 100:150] = 0
    for worse in (recoloured, covered, np.roll(pixels, 15, axis=1)):
        assert pictures.compare(Image.fromarray(worse), figure) > pictures.MOST_CHANGED
    large = figure.resize((5 * figure.width, 5 * figure.height))
    for same in (large, Image.fromarray(np.roll(np.asarray(large), 1, axis=1))):
        assert pictures.compare(same, figure) < pictures.MOST_CHANGED
