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
from xml.etree import ElementTree

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
from weakcell.host.report import matplotlib_charts
from weakcell.host.report.answers import find_answers, summarize
from weakcell.host.report.chart_model import Axis, Panel, Series, condition_axis, condition_label, split_panels
from weakcell.host.report.chart_specs import build_charts, changed_charts, flip_charts, mean_flips, pareto_charts, swept_charts
from weakcell.host.report.data import pareto_front, read_report_data
from weakcell.host.report.margin_data import NetworkRequest, cumulative_shares, measure_margins
from weakcell.host.report.page import render
from weakcell.host.report.paper_figures import name_figures, pick_figures, write_paper_figures
from weakcell.host.report.style import reference_look, series_look
from weakcell.host.report.svg_charts import render_inline_svg
from weakcell.host.report.weak_cell_map import map_weak_cells
from weakcell.host.study.executors import Threads, run_task
from weakcell.memmodels.address import Layout, set_bits
from weakcell.memmodels.catalogue import open_memory, technology
from weakcell.memmodels.errors import InputError, UsageError
from weakcell.memmodels.memory import Key

EVIL = '</script><script>window.evil=1</script><b onclick="x">&amp;\''

TEXT = f"""\
title = "Digits <at> low voltage"
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
    assert "usable down to v_over_vmin=" in text[1]
    assert "energy saved" in text[1]


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
    assert [dict(attributes).get("id") for tag, attributes in elements if tag == "script"] == [None]
    assert not [tag for tag, attributes in elements if any(name.startswith("on") for name, _ in attributes)]
    assert escape(EVIL) in page.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    assert "<h1>Digits &lt;at&gt; low voltage</h1>" in page
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


def test_charts_on_the_page_and_for_papers_have_the_points_of_the_description(folder: Path) -> None:
    """Oracles: the description, and an XML parser. Positions in the SVG are a linear function of the data (or their logarithms)."""
    for chart in build_charts(read_report_data(folder, extras=False)):
        for panel in chart.panels[:1]:
            axes = Figure().subplots()
            matplotlib_charts.plot_panel(axes, panel)
            root = parse_svg(render_inline_svg(panel, 6.0, "p"))
            assert [line.get_label() for line in axes.lines] == [series.name for series in panel.series]
            titled = {}
            for use in root.iter("{http://www.w3.org/2000/svg}use"):
                for title in use:
                    titled[title.text] = (float(use.attrib["x"]), float(use.attrib["y"]))
            for series, line in zip(panel.series, axes.lines, strict=True):
                y = np.array(series.y, dtype=np.float64)
                np.testing.assert_array_equal(line.get_xdata(), np.array(series.x))
                np.testing.assert_array_equal(line.get_ydata(), y)
                if series.marker is None or series.labels == ():
                    continue
                assert series.labels is None or set(series.labels) <= titled.keys()
            drawn = [
                (x, y, *titled[label])
                for series in panel.series
                for x, y, label in zip(series.x, series.y, series.labels or [], strict=bool(series.labels))
                if label in titled
            ]
            for axis, value, place in ((panel.x, 0, 2), (panel.y, 1, 3)):
                values = np.array([point[value] for point in drawn], dtype=np.float64)
                values = np.log10(values) if axis.scale == "log" else values
                if len(set(values)) > 1:
                    assert abs(np.corrcoef(values, [point[place] for point in drawn])[0, 1]) > 0.99999


def parse_svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_no_two_series_look_alike() -> None:
    looks = [series_look(number) for number in range(88)]
    assert len({(look["colour"], look["marker"]) for look in looks}) == 88
    assert len({(look["colour"], look["marker"], look["dash"]) for look in map(series_look, range(500))}) == 500
    references = [reference_look(number) for number in range(10)]
    assert len({tuple(look.items()) for look in references}) == 10
    assert not {look["colour"] for look in references} & {look["colour"] for look in looks}
    assert all(look["dash"] for look in references)


def test_more_than_eight_series_make_several_panels() -> None:
    series = [Series(name=f"s{number}", x=[0.0], y=[0.0]) for number in range(20)]
    guide = Series(name="guide", x=[0.0], y=[0.0])
    panels = split_panels(Panel(Axis("x"), Axis("y"), file_name="f"), series, [guide])
    assert [len(panel.series) for panel in panels] == [9, 9, 5]
    assert [panel.file_name for panel in panels] == ["f-1", "f-2", "f-3"]
    assert [one.name for panel in panels for one in panel.series if one is not guide] == [one.name for one in series]
    assert len({panel.choice for panel in panels}) == 3


def test_panels_of_a_chart_share_the_limits_of_equal_axes(folder: Path) -> None:
    """Oracle: the least and the largest value over all panels, which every pair of axes shows."""
    (flips,) = (chart for chart in build_charts(read_report_data(folder, extras=False)) if chart.name == "flips")
    limits: dict[str, set[tuple[float, float]]] = {}
    for panel in flips.panels:
        axes = Figure().subplots()
        matplotlib_charts.plot_panel(axes, panel)
        limits.setdefault(panel.x.label, set()).add(axes.get_xlim())
        limits.setdefault("flips", set()).add(axes.get_ylim())
    assert len(limits) == 3
    assert all(len(ends) == 1 for ends in limits.values())
    shown = [y for panel in flips.panels for series in panel.series for y in series.y if y is not None]
    ((low, high),) = limits["flips"]
    assert low < min(shown) < max(shown) < high
    one, two, other = Figure().subplots(1, 3)
    for axes, values in ((one, [1.0, 3.0]), (two, [2.0, 9.0]), (other, [50.0, 60.0])):
        axes.plot(values, values)
    other.set(xlabel="other", ylabel="other")
    matplotlib_charts.share_limits([one, two, other])
    assert one.get_ylim() == two.get_ylim() == (pytest.approx(0.9), pytest.approx(9.35))
    assert other.get_ylim()[0] > 49


def test_curves_that_lie_on_each_other_are_drawn_once(folder: Path) -> None:
    """The energy of a read does not depend on the placement, so two studies have one curve."""
    data = read_report_data(folder, extras=False)
    (energy,) = (chart for chart in swept_charts(data) if chart.name.startswith("energy"))
    swept = [study for study in data.studies if "sram-14nm" in study]
    assert len(swept) == 2
    assert {series.name for series in energy.panels[0].series} <= {*swept, " and ".join(swept)}
    points = [tuple(series.y) for series in energy.panels[0].series]
    assert len(set(points)) == len(points)


@pytest.mark.parametrize(
    ("values", "scale"),
    [([0.064, 0.128, 0.256, 0.512], "log"), ([0.75, 0.8, 0.85, 0.9], "linear"), ([1e-4, 1e-2], "log"), ([1.0, 2.0], "linear")],
)
def test_values_that_grow_by_a_factor_have_a_logarithmic_axis(values: list[float], scale: str) -> None:
    assert condition_axis("ber", values, ()).scale == scale


def test_page_of_sixty_points_is_small(folder: Path) -> None:
    """Oracle: the limit of issue and README, 1.5 MB; twelve studies of five points each."""
    data = read_report_data(folder)
    four = [data.points.filter(pl.col("study") == study).head(5) for study in data.studies]
    copies = [part.with_columns(pl.col("study") + f" {copy}") for copy in range(3) for part in four]
    runs = [data.runs.with_columns(pl.col("study") + f" {copy}") for copy in range(3)]
    many = replace(data, points=pl.concat(copies), runs=pl.concat(runs))
    assert len(many.studies) == 12
    assert len(render(many).encode()) < 1_500_000


def test_of_many_tensors_those_with_most_flips_are_shown(folder: Path) -> None:
    data = read_report_data(folder, extras=False)
    many = data.runs.drop([name for name in data.runs.columns if name.startswith("flips[")])
    rows = np.arange(many.height)
    many = many.with_columns(pl.Series(f"flips[t{number}]", (number + 1) * (rows + 1)) for number in range(12))
    (chart,) = flip_charts(replace(data, runs=many))
    one = chart.panels[0]
    assert [series.name for series in one.series] == [*(f"t{number}" for number in range(5, 12)), "5 other tensors"]
    means = mean_flips(many.filter(pl.col("study") == data.studies[0]))
    total = np.sum([means[f"t{number}"]["flips"].to_numpy() for number in range(5)], axis=0)
    assert one.series[-1].y == pytest.approx(total.tolist())


def test_what_does_not_depend_on_the_axis_is_not_drawn(folder: Path) -> None:
    data = read_report_data(folder, extras=False)
    same = replace(data, points=data.points.with_columns(pl.when(pl.col("energy").is_not_null()).then(0.5).alias("energy")))
    names = {chart.name for build in (swept_charts, pareto_charts) for chart in build(same)}
    assert names == {"accuracy-v-over-vmin", "accuracy-ber"}
    assert not any("saved" in sentence for sentence in summarize(same))
    assert {answer.saving for answer in find_answers(same)} == {
        "none: v_over_vmin does not change the energy", "energy not published"
    }  # fmt: skip
    two = replace(data, points=data.points.filter(~pl.col("sweep_value").is_in([0.85])))
    assert [chart.name for chart in pareto_charts(two)] == []


def test_answers_are_those_of_the_table(folder: Path) -> None:
    """Oracle: a search over the rows, which knows neither order nor ties."""
    data = read_report_data(folder, extras=False)
    for answer in find_answers(data):
        rows = [row for row in data.points.iter_rows(named=True) if row["study"] == answer.study]
        clean = data.runs.filter(pl.col("study") == answer.study)["clean_score"][0]
        usable = [row for row in rows if (row["mean"] if row["low"] is None else row["low"]) >= clean - 0.01]
        if not usable:
            assert answer.point == "none"
            continue
        energies = {row["energy"] for row in rows}
        if None in energies:
            best = max(usable, key=lambda row: row["flip_rate"])
            assert answer.saving == "energy not published"
        else:
            best = min(usable, key=lambda row: row["energy"])
            saved = 100 * (1 - best["energy"] / max(energies))
            assert answer.saving.startswith(f"{saved:.2f} % (" if saved else "none")
        assert answer.point == f"{best['sweep_key']}={best['sweep_value']:.6g}"
        assert answer.score.startswith(f"{100 * best['mean']:.2f} %")


def test_axes_have_names_with_units(folder: Path) -> None:
    axes = {chart.name: chart.panels[0].x.label for chart in swept_charts(read_report_data(folder, extras=False))}
    assert axes["accuracy-v-over-vmin"] == "supply voltage / Vmin"
    assert axes["accuracy-ber"] == "bit error rate"
    dram = technology("dram").conditions
    assert condition_label("temperature", dram) == "temperature of the cells (°C)"
    assert condition_label("vdd", technology("sram-28nm-vc707").conditions) == "supply voltage VCCBRAM (V)"
    assert condition_label("unknown", dram) == "unknown"


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


def test_figures_for_papers_repeat(folder: Path, tmp_path: Path) -> None:
    """A heat map and curves, in all formats; the wide figures differ only in a number."""
    data = read_report_data(folder)
    few = replace(data, points=data.points.filter(pl.col("sweep_key") == "ber").head(0), maps=data.maps[:1])
    figures = name_figures(build_charts(few))
    one, two = (write_paper_figures(figures, tmp_path / name, ("pdf", "svg", "png")) for name in ("one", "two"))
    (die,) = (name for name in figures if name.startswith("weak-cells-digits-bnn-sram-14nm"))
    assert [path.name for path in one] == [f"{name}.{end}" for name in (die, "margins") for end in ("pdf", "svg", "png")]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_figures_are_chosen_by_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every panel has a name of its own; a dozen are written, or those that are asked for."""
    charts = build_charts(read_report_data(folder, extras=False))
    names = [panel.file_name for chart in charts for panel in chart.panels]
    figures = name_figures(charts)
    assert sorted(figures) == sorted(filter(None, names))
    assert set(figures) >= {"accuracy-v_over_vmin", "energy-v_over_vmin-x-e-vmin", "accuracy-ber", "pareto-x-e-vmin"}
    assert len([name for name in figures if name.startswith("flips-digits-bnn-")]) == 4
    assert next(iter(pick_figures(dict.fromkeys(map(str, range(40)), charts[0].panels[0])))) == "0"
    assert len(pick_figures(dict.fromkeys(map(str, range(40)), charts[0].panels[0]))) == 12
    assert set(pick_figures(figures, ["accuracy", "pareto*"])) == {"accuracy-v_over_vmin", "accuracy-ber", "pareto-x-e-vmin"}
    page, out = str(tmp_path / "page.html"), tmp_path / "figures"
    monkeypatch.setattr("weakcell.host.report.page.render", lambda *_: "the page")
    asked = ["report", str(folder), "--out", page, "--figures", str(out), "--only", "accuracy-ber", "--format", "svg"]
    done = CliRunner().invoke(app, [*asked, "--width", "two-column"])
    assert done.exit_code == 0, done.output
    assert [path.name for path in out.iterdir()] == ["accuracy-ber-two-column.svg"]
    assert Path(page).read_text(encoding="utf-8") == "the page"
    with pytest.raises(UsageError, match="accuracy-ber"):
        pick_figures(figures, ["nothing"])
    for wrong in (["--only", "flips"], ["--figures", str(out), "--format", "gif"]):
        assert CliRunner().invoke(app, ["report", str(folder), *wrong]).exit_code == 2


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
    assert shown.count("<tr>") == 15 + 5
    assert found.report(tmp_path / "page.html").read_bytes() == (folder / "report.html").read_bytes()


def test_report_of_a_single_study(tmp_path: Path) -> None:
    emulate(memory="uniform:ber=0.01", trials=2, images=20).save(tmp_path)
    page = render(read_report_data(tmp_path))
    assert "Accuracy by memory" not in page  # one point needs no curve
    assert "digits-bnn" in page


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
    drawn = page.eval_on_selector_all(".chart", "charts => charts.map(c => c.querySelectorAll('.chosen .wide svg').length)")
    assert drawn == [1] * len(build_charts(read_report_data(folder)))

    def column(number: int) -> list[str]:
        return page.eval_on_selector_all(f"#table tbody td:nth-child({number})", "cells => cells.map(c => c.dataset.value)")  # type: ignore[no-any-return]

    page.focus("#table th:nth-child(5) button")
    for expected, state in ((False, "ascending"), (True, "descending")):
        page.keyboard.press("Enter")
        values = [float(value) for value in column(5)]
        assert values == sorted(values, reverse=expected)
        assert page.get_attribute("#table th:nth-child(5)", "aria-sort") == state
    page.fill("#filter", "ber=0.1")
    assert page.inner_text("#shown") == "2 of 14 rows"
    with page.expect_download() as download:
        page.click("#download")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("study,point,trials,")

    page.select_option("#flips select", "3")
    page.select_option("#margins select", "1")
    label = "flips in the output layer's weights that the answer survives"
    assert page.locator("#margins .chosen .wide text", has_text=label).is_visible()
    assert page.locator("#margins .panel").nth(0).is_hidden()
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("window.evil") is None
    assert told == []
    assert [url for url in asked if not url.startswith(("file://", "blob:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file://")]) == 1
    page.close()


def test_the_page_fits_dark_systems_telephones_and_paper(browser: Any, folder: Path) -> None:
    """Nothing is wider than the window, no chart is empty, no text lies on another, and paper shows every panel on white."""
    page = browser.new_page(color_scheme="dark", viewport={"width": 400, "height": 800})
    page.goto(f"file://{folder / 'report.html'}")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(18, 22, 28)"
    ink = "getComputedStyle(document.querySelector('.chart text')).fill"
    assert page.evaluate(ink) == "rgb(230, 237, 243)"
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    named = "elements => elements.filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))"
    nameless = f"{named}.map(e => e.outerHTML.slice(0, 120))"
    assert page.eval_on_selector_all("button, select, input, .chart, [role]", nameless) == []
    assert page.eval_on_selector_all("[id]", "all => all.length - new Set(all.map(e => e.id)).size") == 0
    for width, shown in ((400, "narrow"), (1280, "wide")):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.eval_on_selector_all(".chart", _OVERLAPS.replace("WIDTH", shown)) == []
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.locator(".panel:visible").count() == page.locator(".panel").count() > 8
    assert page.locator("#theme, nav").locator("visible=true").count() == 0
    broken = "cells => cells.filter(c => c.getClientRects().length && c.scrollWidth > c.clientWidth + 1).map(c => c.textContent)"
    page.set_viewport_size({"width": 1000, "height": 800})  # A4, landscape, with margins
    assert page.eval_on_selector_all("#points td", broken) == []
    assert set(page.eval_on_selector_all("#points td.number", "cells => cells.map(c => getComputedStyle(c).whiteSpace)")) == {
        "nowrap"
    }
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    page.close()


_OVERLAPS = """charts => charts.flatMap(chart => {
    const texts = [...chart.querySelectorAll('.chosen .WIDTH text')];
    if (!texts.length) return [chart.id + ' is empty'];
    const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
    const frame = chart.getBoundingClientRect();
    const outside = boxes.filter(([, b]) => b.left < frame.left - 2 || b.right > frame.right + 2).map(([t]) => t + ' is outside');
    return outside.concat(boxes.flatMap(([t, a], i) => boxes.slice(i + 1).filter(([, b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
        .map(([u]) => `${chart.id}: ${t} on ${u}`)));
})"""
"""Texts of charts that lie on another one or outside their chart; titles with names that are too long break lines."""
