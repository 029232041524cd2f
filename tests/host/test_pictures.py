"""The report in a browser and every figure look like the pictures in `pictures/`, which people have looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from tests.host import pictures
from weakcell.host.report.technology_curves import collect_panels

made_here = pytest.mark.skipif(
    not mpl.__version__.startswith(f"{pictures.MATPLOTLIB}."),
    reason=f"the pictures were drawn by Matplotlib {pictures.MATPLOTLIB}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.make_campaign(tmp_path_factory.mktemp("pictures"))


def list_changed(drawn: Iterable[tuple[str, Image.Image]]) -> dict[str, float]:
    """Return the share of changed pixels of each picture that does not look like its reference."""
    shares = {name: pictures.compare(picture, pictures.reference(name)) for name, picture in drawn}
    return {name: share for name, share in shares.items() if share >= pictures.MOST_CHANGED}


@made_here
def test_pages_look_as_before(folder: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if pictures.find_browser() is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=pictures.find_browser(), args=["--no-sandbox"])
        assert not list_changed(pictures.photograph(browser, folder / "report.html"))
        browser.close()


@made_here
def test_figures_look_as_before(folder: Path) -> None:
    """Every result object and figure for papers against its picture; no picture is left over."""
    names = set()

    def draw_all() -> Iterator[tuple[str, Image.Image]]:
        for name, draw in pictures.figures(folder):
            names.add(name)
            draw(folder / "figure.png")
            yield name, Image.open(folder / "figure.png")

    changed = list_changed(draw_all())
    assert not changed, f"{changed}; look at them: python -m tests.host.pictures {' '.join(changed)}"
    laws = {f"laws-{name}" for name in collect_panels()}  # test_curves draws them
    assert names | laws | set(pictures.PAGES) == {path.stem for path in pictures.REFERENCES.iterdir()}


def test_comparison_sees_what_a_reader_sees() -> None:
    """It sees another theme, another colour of a curve, and a covered, moved or missing part; it accepts a shift by a pixel."""
    light, figure = (pictures.reference(name).convert("RGB") for name in ("page-1280-light", "emulate"))
    assert pictures.compare(pictures.reference("page-1280-dark"), light) > 0.5
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
