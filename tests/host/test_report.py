"""The report: a page that works by itself in a browser, escapes what it is given, and figures for a paper that repeat."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from weakcell import emulate, margins, read_results
from weakcell.host.campaign.campaign import resolve_campaign
from weakcell.host.campaign.schema import read_campaign
from weakcell.host.campaign.store import open_store, read_store
from weakcell.host.campaign.sweep import run_campaign
from weakcell.host.campaign.tables import Tables, write_tables
from weakcell.host.cli import app
from weakcell.host.report import matplotlib_charts, plotly_charts
from weakcell.host.report.chart_specs import build_charts, changed_charts, pareto_charts, swept_charts
from weakcell.host.report.data import pareto_front, read_report_data, summarize
from weakcell.host.report.margin_data import NetworkRequest, cumulative_shares, measure_margins
from weakcell.host.report.matplotlib_charts import write_paper_figures
from weakcell.host.report.page import render
from weakcell.host.report.weak_cell_map import map_weak_cells
from weakcell.host.study.executors import Threads, run_task
from weakcell.memmodels.address import Layout, set_bits
from weakcell.memmodels.catalogue import open_memory
from weakcell.memmodels.errors import InputError
from weakcell.memmodels.memory import Key

EVIL = '</script><script>window.evil=1</script><b onclick="x">&amp;\''

TEXT = f"""\
trials = 3

[[network]]
model = "digits-bnn"
images = 40

[[memory]]
spec = "sram-14nm"
grid = {{ v_over_vmin = [0.78, 0.85, 1.0] }}

[[memory]]
spec = "uniform"
grid = {{ ber = "1e-4:1e-1:x10" }}

[[placement]]
name = '''{EVIL}'''

[[placement]]
name = "first layer safe"
rules = {{ "*conv1*" = "uniform:ber=0" }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report")
    (made / "c.toml").write_text(TEXT, encoding="utf-8")
    campaign = resolve_campaign(read_campaign(made / "c.toml"))
    with open_store(made) as store:
        run_campaign(campaign, store, Threads(partial(run_task, campaign.workloads), 2), ["weakcell", "sweep", EVIL])
        write_tables(Tables(store), made)
    result = CliRunner().invoke(app, ["report", str(made)])
    assert result.exit_code == 0, result.output
    return made


def test_summary_in_words(folder: Path) -> None:
    text = summarize(read_report_data(folder))
    assert text[0].startswith("42 runs of 1 network at 14 operating points in 4 studies")
    assert "the lowest energy at which less than 1 point is lost" in text[1]
    assert "flip rate" in text[2]


def test_nothing_is_on_the_front_that_another_point_beats(folder: Path) -> None:
    points = read_report_data(folder).points.drop_nulls("energy")
    front = {(row["energy"], row["mean"]) for row in pareto_front(points).iter_rows(named=True)}
    for row in points.iter_rows(named=True):
        beaten = any(
            (other["energy"] <= row["energy"] and other["mean"] > row["mean"])
            or (other["energy"] < row["energy"] and other["mean"] >= row["mean"])
            for other in points.iter_rows(named=True)
        )
        assert ((row["energy"], row["mean"]) in front) is not beaten


def test_strings_are_escaped(folder: Path) -> None:
    """Oracle: `html.parser`, which sees the elements that a browser would make."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    elements = parse_elements(page)
    assert [dict(attributes).get("id") for tag, attributes in elements if tag == "script"] == ["figures", None, None]
    assert not [tag for tag, attributes in elements if any(name.startswith("on") for name, _ in attributes)]
    assert escape(EVIL) in page.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    injected = page.replace("<h1>", "<h1><script>1</script><b onclick='x'>")
    assert len(parse_elements(injected)) == len(elements) + 2


def parse_elements(page: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Return name and attributes of every element."""
    elements: list[tuple[str, list[tuple[str, str | None]]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: elements.append((tag, attributes))  # type: ignore[method-assign]
    parser.feed(page)
    return elements


def test_every_chart_has_a_caption_and_axes_with_labels(folder: Path) -> None:
    charts = {chart.name: chart for chart in build_charts(read_report_data(folder))}
    assert charts.keys() == {
        "accuracy-v-over-vmin",
        "energy-v-over-vmin-x-e-vmin",
        "accuracy-ber",
        "pareto-x-e-vmin",
        "changed-flip-rate",
        "flips",
        "weak-cells",
        "margins",
    }
    for chart in charts.values():
        assert chart.title
        assert len(chart.caption) > 40
        assert all(panel.choice for panel in chart.panels) or len(chart.panels) == 1
        assert all(axis.label for panel in chart.panels for axis in (panel.x, panel.y))


def test_both_renderers_draw_the_same_points(folder: Path) -> None:
    """Oracle: the description. Page and paper show every series of it, point for point, under the same name."""
    for chart in build_charts(read_report_data(folder)):
        for panel in chart.panels:
            if panel.heat_map is not None:
                continue
            traces = [trace for trace in plotly_charts.plot_panel(panel)["data"] if trace["showlegend"]]
            axes = Figure().subplots()
            matplotlib_charts.plot_panel(axes, panel)
            assert [trace["name"] for trace in traces] == [series.name for series in panel.series]
            assert [line.get_label() for line in axes.lines] == [series.name for series in panel.series]
            for series, trace, line in zip(panel.series, traces, axes.lines, strict=True):
                y = np.array(series.y, dtype=np.float64)
                assert trace["x"] == list(series.x)
                np.testing.assert_array_equal(np.array(trace["y"], dtype=np.float64), y)
                np.testing.assert_array_equal(line.get_xdata(), np.array(series.x))
                np.testing.assert_array_equal(line.get_ydata(), y)


def test_changed_predictions_are_over_the_flips_of_the_runs(folder: Path) -> None:
    """Oracle: means of flips, bits read and changed predictions over the runs of each point."""
    data = read_report_data(folder, extras=False)
    (chart,) = changed_charts(data)
    drawn = {(series.name, x): y for series in chart.panels[0].series for x, y in zip(series.x, series.y, strict=True)}
    runs = data.runs.group_by("study", "sweep_value").agg(pl.col("flips", "bits_read").sum(), pl.col("changed").mean())
    flipped = {(study, flips / bits): 100 * changed for study, _, flips, bits, changed in runs.rows() if flips}
    assert drawn == pytest.approx(flipped)
    assert len(drawn) > 8
    assert list(changed_charts(replace(data, points=data.points.with_columns(flip_rate=0.0)))) == []


def test_charts_of_accuracy_and_of_unchanged_predictions_have_names_of_their_own(folder: Path) -> None:
    data = read_report_data(folder, extras=False)
    unlabelled = data.points.with_columns(pl.lit("unchanged").alias("score"), (pl.col("study") + " unlabelled").alias("study"))
    both = replace(data, points=pl.concat([data.points, unlabelled]))
    names = [chart.name for build in (swept_charts, pareto_charts) for chart in build(both)]
    assert len(set(names)) == len(names) == 7


def test_figures_for_papers_repeat(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heat map and curves, in all formats; the wide figures differ only in a number."""
    monkeypatch.delitem(matplotlib_charts._WIDTHS, "two-column")
    data = read_report_data(folder)
    few = replace(data, points=data.points.filter(pl.col("sweep_key") == "ber").head(0), maps=data.maps[:1])
    one, two = (write_paper_figures(build_charts(few), tmp_path / name) for name in ("one", "two"))
    kinds = ("weak-cells-1", "margins")
    assert [path.name for path in one] == [f"{kind}-one-column.{end}" for kind in kinds for end in ("pdf", "svg", "png")]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_every_chart_has_figures_for_papers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every panel is laid out and drawn; of the files, only the narrow SVG, because each costs half a second."""
    save = Figure.savefig

    def save_one_kind(figure: Figure, file: Any, **options: Any) -> None:
        if options["format"] == "svg" and figure.get_figwidth() < 5:
            save(figure, file, **options)

    monkeypatch.setattr(Figure, "savefig", save_one_kind)
    whole = CliRunner().invoke(
        app, ["report", str(folder), "--out", str(tmp_path / "page.html"), "--figures", str(tmp_path / "all")]
    )
    assert whole.exit_code == 0, whole.output
    assert (tmp_path / "page.html").read_bytes() == (folder / "report.html").read_bytes()
    written = {path.name: path.stat().st_size for path in (tmp_path / "all").iterdir()}
    drawn = {name.removesuffix("-one-column.svg") for name, size in written.items() if size}
    assert drawn == {panel.file_name for chart in build_charts(read_report_data(folder)) for panel in chart.panels} - {None}
    assert drawn >= {"accuracy-v_over_vmin", "energy-v_over_vmin-x-e-vmin", "accuracy-ber", "pareto-x-e-vmin"}
    assert drawn >= {"flips-1", "flips-2", "flips-3", "flips-4", "weak-cells-1", "margins"}
    assert len(written) == len(drawn) * 2 * 3


def test_weak_cells_are_those_that_a_memory_returns_wrong(folder: Path) -> None:
    (drawn,) = read_report_data(folder).maps  # both placements use the same die; uniform errors are drawn at each read
    assert drawn.level_names == ("never", "0.78", "0.85", "1")
    assert [name for name, _ in drawn.points] == ["1", "0.85", "0.78"]
    counts = dict(drawn.points)
    cells = drawn.level.reshape(-1)
    layout = Layout("all", cells.size, 1)
    for name, at_least in (("0.78", 1), ("0.85", 2)):
        memory = open_memory(f"sram-14nm:v_over_vmin={name}", 0, 0)
        wrong = np.zeros(cells.size, np.bool_)
        for stored in (0, 1):
            words = np.full(layout.words, 2**64 - 1 if stored else 0, np.uint64)
            read = np.empty_like(words)
            memory.read(memory.write(words, layout, Key()), Key(), read)
            wrong |= np.unpackbits((read ^ words).view(np.uint8), bitorder="little").astype(np.bool_)
        np.testing.assert_array_equal(cells >= at_least, wrong)
        assert counts[name] == wrong.sum() > 0


def test_rows_and_columns_are_the_memorys_own() -> None:
    spec = "sram-28nm-vc707:vdd=0.54"
    runs = pl.DataFrame({"study": ["s"], "memory": [spec], "sweep_value": [None], "sweep_key": [None], "seed": [0], "die": [2]},
                        schema_overrides={"sweep_value": pl.Float64, "sweep_key": pl.String})  # fmt: skip
    (drawn,) = map_weak_cells(runs)
    assert drawn.level.shape == (1024, 64)
    one, zero = open_memory(spec, 0, 2).permanent_weak_cells(1024)  # type: ignore[attr-defined]
    for cell in set_bits(one | zero):
        bank, place = divmod(int(cell), 1024 * 16)
        assert drawn.level[place // 16, bank * 16 + place % 16] == 1
    assert drawn.level.sum() == drawn.points[0][1] > 10
    rows, step = drawn.shrink_rows()
    assert (rows.shape, step) == ((256, 64), 4)
    assert map_weak_cells(runs.with_columns(memory=pl.lit("board:/dev/none"))) == ()
    protected = map_weak_cells(runs.with_columns(memory=pl.lit(f"secded+{spec}")))[0]
    np.testing.assert_array_equal(protected.level, drawn.level)


def test_margins_are_of_the_networks_that_ran(folder: Path, tmp_path: Path) -> None:
    data = read_report_data(folder)
    expected = margins("digits-bnn", images=40).frame
    (found,) = data.margins
    np.testing.assert_array_equal(found.shares, np.sort(expected["relative_margin"].to_numpy()))
    x, y = cumulative_shares(found.flips)
    for flips, percent in zip(x, y, strict=True):
        assert percent == pytest.approx(100 * float((expected["exact"] <= flips).mean()), abs=1e-3)
    changed = NetworkRequest("digits-bnn", "digits", 39, {**found_identity(folder), "data": "digits"})
    assert measure_margins([changed], None) == ((), ("digits-bnn on digits: the data changed since it ran",))
    gone = NetworkRequest(str(tmp_path / "gone.onnx"), None, None, found_identity(folder))
    assert measure_margins([gone], None)[1][0].endswith("there is no such file")


def found_identity(folder: Path) -> dict[str, Any]:
    with read_store(folder) as store:
        return store.get_fact("networks")[0]["identity"]  # type: ignore[no-any-return]


def test_results_show_themselves_in_a_notebook(folder: Path, tmp_path: Path) -> None:
    found = read_results(folder)
    assert repr(found).endswith(": 4 studies, 14 points, 42 runs>")
    assert (found.frame.height, found.summary.height) == (42, 14)
    shown = found._repr_html_()
    assert shown.count("data:image/svg+xml;base64,") == 2
    assert "<script" not in shown
    assert "&lt;/script&gt;&lt;script&gt;window.evil=1" in shown
    assert shown.count("<tr>") == 15
    assert found.report(tmp_path / "page.html").read_bytes() == (folder / "report.html").read_bytes()


def test_report_of_a_single_study(tmp_path: Path) -> None:
    emulate(memory="uniform:ber=0.01", trials=2, images=20).save(tmp_path)
    page = render(read_report_data(tmp_path))
    assert "Accuracy by memory" in page


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are none"):
        read_report_data(tmp_path)
    with open_store(tmp_path):
        pass
    with pytest.raises(InputError, match="no run is finished"):
        read_report_data(tmp_path)


# ── in a browser ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_the_page_in_a_browser(browser: Any, folder: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{folder / 'report.html'}")
    page.wait_for_selector("html[data-drawn=yes]", timeout=120_000)

    shapes = "'.scatterlayer .trace, .heatmaplayer image'"
    drawn = page.eval_on_selector_all(".chart", f"charts => charts.map(c => c.querySelectorAll({shapes}).length)")
    assert len(drawn) == len(build_charts(read_report_data(folder)))
    assert all(drawn)
    covered = page.eval_on_selector_all(
        ".chart",
        "charts => charts.filter(c => c.querySelector('.legend') && c.querySelector('.legend').getBoundingClientRect().top "
        "< c.querySelector('.xtitle').getBoundingClientRect().bottom - 1).map(c => c.id)",
    )
    assert covered == []

    def column(number: int) -> list[str]:
        return page.eval_on_selector_all(f"tbody td:nth-child({number})", "cells => cells.map(c => c.dataset.value)")  # type: ignore[no-any-return]

    page.focus("th:nth-child(5) button")
    for expected, state in ((False, "ascending"), (True, "descending")):
        page.keyboard.press("Enter")
        values = [float(value) for value in column(5)]
        assert values == sorted(values, reverse=expected)
        assert page.get_attribute("th:nth-child(5)", "aria-sort") == state
    page.fill("#filter", "ber=0.1")
    assert page.inner_text("#shown") == "2 of 14 rows"
    with page.expect_download() as download:
        page.click("#download")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("study,point,trials,")

    side = "e => [e.getBoundingClientRect().left, e.getBoundingClientRect().right]"
    bar, shown = (page.eval_on_selector(f"#chart-weak-cells .{part}", side) for part in ("colorbar", "heatmaplayer"))
    assert bar[0] > shown[1]
    page.select_option("#flips select", "3")
    page.select_option("#margins select", "1")
    page.wait_for_function("document.querySelector('#chart-margins .xtitle').textContent.startsWith('flips in the output layer')")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("window.evil") is None
    assert told == []
    assert [url for url in asked if not url.startswith(("file://", "blob:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file://")]) == 1
    page.close()


def test_the_page_follows_a_dark_system(browser: Any, folder: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(f"file://{folder / 'report.html'}")
    page.wait_for_selector("html[data-drawn=yes]", timeout=120_000)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    named = "elements => elements.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))"
    nameless = f"{named}.map(e => e.outerHTML.slice(0, 120))"
    assert page.eval_on_selector_all("button, select, input, .chart, [role]", nameless) == []
    page.close()
