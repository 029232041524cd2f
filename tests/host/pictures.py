"""Reference pictures of the report and of every figure: `python -m tests.host.pictures` writes them anew.

They are small and compressed. Look at each one before you commit it; large pictures of the figures stay in the temporary folder.
Fonts are Matplotlib's own, on the page too, so that a picture does not depend on the fonts of a machine.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import polars as pl
from PIL import Image, ImageFilter

import weakcell
from tests.host.campaigns import campaign_of, run_all
from weakcell.host.api.training import TrainingResult
from weakcell.host.report.chart_specs import build_charts
from weakcell.host.report.data import read_report_data
from weakcell.host.report.matplotlib_charts import plot_paper_figure, save_figure
from weakcell.host.report.page import render
from weakcell.host.report.paper_figures import WIDTHS, name_figures
from weakcell.host.report.style import PAPER_STYLE, STYLE
from weakcell.host.report.technology_curves import _plot_figure, collect_panels

REFERENCES = Path(__file__).parent / "pictures"
WIDTH = 220
"""Pixels of a reference picture of a figure."""
MATPLOTLIB = "3.11"
"""Version that drew the references: others place ticks and texts elsewhere."""
MOST_CHANGED = 0.005
"""Share of the pixels that may differ: solvers move texts by a pixel."""
_VISIBLE = 40
"""Difference of a colour (of 255) that a reader notices, after blurring."""

CAMPAIGN = """\
title = "Digits at low voltage"
trials = 3
[[network]]
model = "digits-bnn"
images = 40
[[memory]]
spec = "sram-14nm"
grid = { v_over_vmin = "0.75:1.0:0.05" }
[[memory]]
spec = "uniform"
grid = { ber = "1e-4:1e-1:x10" }
"""

PAGES: dict[str, dict[str, Any]] = {
    "page-1280-light": {"width": 1280, "color_scheme": "light"},
    "page-1280-dark": {"width": 1280, "color_scheme": "dark"},
    "page-400-light": {"width": 400, "color_scheme": "light"},
    "page-400-dark": {"width": 400, "color_scheme": "dark"},
    "page-print": {"width": 1000, "color_scheme": "dark", "media": "print"},
}
"""Window, theme and medium of each picture of the page."""


def make_campaign(folder: Path) -> Path:
    """Run a campaign of ten points; return the folder with its report."""
    run_all(campaign_of(CAMPAIGN, folder), folder)
    (folder / "report.html").write_text(render(read_report_data(folder)), encoding="utf-8")
    return folder


def find_browser() -> str | None:
    """Return the path of Chromium; None if there is none."""
    return next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


def photograph(browser: Any, page_file: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield the pictures of `PAGES`, without the versions and the machine at the page's end. The page is loaded once."""
    page = browser.new_page(bypass_csp=True)
    page.goto(page_file.as_uri())
    font = base64.b64encode((Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf").read_bytes()).decode()
    page.add_style_tag(
        content=f"@font-face {{ font-family: Fixed; src: url(data:font/ttf;base64,{font}); }}"
        "body, svg text, button, select, input { font-family: Fixed !important; } #provenance { display: none; }"
    )
    page.evaluate("document.fonts.ready")
    for name, look in PAGES.items():
        page.set_viewport_size({"width": look["width"], "height": 900})
        page.emulate_media(media=look.get("media", "screen"), color_scheme=look["color_scheme"])
        taken = page.screenshot(full_page=True, type="jpeg", quality=95)
        yield name, Image.open(io.BytesIO(taken)).convert("RGB")
    page.close()


def figures(folder: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield the name of each figure, and a function that draws it into a file.

    Args:
        folder: of `make_campaign`; results of further commands are written below it.
    """
    few: dict[str, Any] = {"images": 30}
    sweep: dict[str, Any] = {"memory": "uniform", "sweep": "ber=0.001:0.1:x10", **few}
    results: dict[str, Callable[[], Any]] = {
        "inspect": partial(weakcell.inspect, "digits-bnn"),
        "emulate": partial(weakcell.emulate, memory="sram-14nm", sweep="v_over_vmin=0.75:1.0:0.05", trials=3, **few),
        "predict": partial(weakcell.predict, samples=10, check_trials=2, **sweep),
        "rank": partial(weakcell.rank, samples=10, **few),
        "margins": partial(weakcell.margins, **few),
        "validate": partial(validate, sweep),
        "optimize": partial(weakcell.optimize, sweep="v_over_vmin=0.9,1.0", failures=0, tries=1, partitions=1, images=40),
        "memories": weakcell.memories,
        "characterize": partial(characterize, folder),
        "train": partial(trained, folder),
        "campaign": partial(weakcell.read_results, folder),
    }
    for name, make in results.items():
        yield name, partial(lambda make, path: make().plot(path), make)
    for name, panel in name_figures(build_charts(read_report_data(folder))).items():
        draw = partial(plot_paper_figure, panel, WIDTHS["one-column"])
        yield f"paper-{name}", partial(_save, draw, PAPER_STYLE)


def laws() -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield the name of each picture of published laws, and a function that draws it into a file."""
    for name, panels in collect_panels().items():
        yield f"laws-{name}", partial(_save, partial(_plot_figure, panels), STYLE)


def _save(draw: Callable[[], Any], style: dict[str, Any], path: Path) -> None:
    save_figure(draw, [path], style)


def validate(sweep: dict[str, Any]) -> Any:
    """Return a validation whose prediction draws few samples."""
    with patch("weakcell.host.analysis.prediction._FEWEST_DRAWS", 300):
        return weakcell.validate(trials=2, **sweep)


def characterize(folder: Path) -> Any:
    """Return the characterization of 16,000 cells with normal thresholds."""
    volts = (0.60, 0.57, 0.54)
    thresholds = np.random.default_rng(5).normal(0.50, 0.03, 16_000)
    written = np.full(2_000, 0xFF, np.uint8)
    read = np.stack([written ^ np.packbits(thresholds > volt, bitorder="little") for volt in volts])
    np.savez(folder / "theirs.npz", vdd=volts, written=written, read=read, rows=64, columns=16, title="a chip", nominal=1.0)
    with patch("weakcell.host.report.matplotlib_charts.save_figure"):  # the same figure as that of `plot`
        return weakcell.characterize(folder / "characterized", readbacks=folder / "theirs.npz")


def trained(folder: Path) -> TrainingResult:
    """Return records of a training of three networks, with made-up curves: training itself takes minutes."""
    folder = folder / "trained"
    folder.mkdir(exist_ok=True)
    names = ("ce", "mcel", "hinge")
    for number, name in enumerate(names):
        epochs = [
            {"number": epoch, "loss": (2.3 + number) * 0.8**epoch, "accuracy": 0.97 - 0.8 * 0.6**epoch - 0.01 * number}
            for epoch in range(1, 13)
        ]
        (folder / f"{name}.json").write_text(json.dumps({"epochs": epochs}), encoding="utf-8")
    rows = [(name, value, 0.96 - (4 - number) * value) for number, name in enumerate(names) for value in (0.001, 0.01, 0.03, 0.1)]
    curves = pl.DataFrame(rows, schema=["id", "value", "accuracy"], orient="row")
    return TrainingResult(folder, pl.DataFrame({"id": names, "name": names}), curves, "ber=0.001,0.01,0.03,0.1")


def shrink(picture: Image.Image, width: int = WIDTH) -> Image.Image:
    """Return a picture `width` pixels wide."""
    return picture.convert("RGB").resize((width, round(width * picture.height / picture.width)), Image.Resampling.LANCZOS)


def compare(picture: Image.Image, reference: Image.Image) -> float:
    """Return the share of pixels that differ visibly; 1 if the pictures have other shapes."""
    ratio = picture.height / picture.width * reference.width / reference.height
    if not 0.98 < ratio < 1.02:
        return 1.0
    one = picture.convert("RGB").resize(reference.size, Image.Resampling.LANCZOS)
    blurred = [np.asarray(image.filter(ImageFilter.GaussianBlur(1.0)), np.int16) for image in (one, reference.convert("RGB"))]
    return float((np.abs(blurred[0] - blurred[1]).max(axis=2) > _VISIBLE).mean())


def page_width(name: str) -> int:
    """Return the pixels of a page's reference: narrow windows are shrunk less."""
    return WIDTH if PAGES[name]["width"] > 500 else 120


def reference(name: str) -> Image.Image:
    """Return a reference picture."""
    return Image.open(REFERENCES / f"{name}.webp")


def keep(name: str, picture: Image.Image, width: int) -> None:
    """Write a reference picture."""
    shrink(picture, width).save(REFERENCES / f"{name}.webp", quality=60, method=6)


def main() -> None:
    """Write all reference pictures; with names, only those that begin so."""
    from playwright.sync_api import sync_playwright

    wanted = tuple(sys.argv[1:]) or ("",)
    REFERENCES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made, sync_playwright() as driver:
        folder = make_campaign(Path(made))
        browser = driver.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        for name, picture in photograph(browser, folder / "report.html"):
            if name.startswith(wanted):
                keep(name, picture, page_width(name))
        for name, draw in (*figures(folder), *laws()):
            if name.startswith(wanted):
                draw(folder / "figure.png")
                keep(name, Image.open(folder / "figure.png"), WIDTH)
                os.replace(folder / "figure.png", Path(tempfile.gettempdir()) / f"{name}.png")


if __name__ == "__main__":
    main()
