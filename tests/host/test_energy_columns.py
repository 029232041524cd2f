"""Energies in results: the same for any data set, with what they count in columns and caption; older results are still read."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from weakcell import emulate
from weakcell.host.report.captions import describe_briefly, describe_study
from weakcell.host.report.data import read_report_data
from weakcell.host.report.study_figure import plot_study
from weakcell.host.study.results import restate_columns, restate_frame

MEMORY = "fefet:domains=200"


@pytest.mark.parametrize(
    ("policy", "reads", "words"),
    [
        (
            "load",
            1.0,
            "one read of every weight is counted for each inference, whatever the number of images (inferences_per_read=N",
        ),
        ("batch", 1 / 256, "256 inferences share one read of the weights (a batch)"),
        ("image", 1.0, "one read of every weight is counted for each inference, whatever the number of images: published"),
    ],
)
def test_energy_does_not_depend_on_the_number_of_images(policy: str, reads: float, words: str) -> None:
    few, many = (emulate("digits-bnn", memory=MEMORY, read_every=policy, trials=1, images=n) for n in (3, 9))
    assert few.frame["energy"].to_list() == many.frame["energy"].to_list()
    assert few.frame["energy"][0] == pytest.approx(0.0110156 * 59616 * reads, rel=1e-5)  # pJ/bit x bits of the weights
    assert few.summary["reads_per_inference"][0] == pytest.approx(reads)
    caption = describe_study(few.resolved)
    for part in (words, "Left out: arithmetic (MACs), activations, writes of the weights and leakage",
                 "Access latency: of one access, not of an inference"):  # fmt: skip
        assert part in caption


def test_caption_names_what_is_not_left_out() -> None:
    memory = f"{MEMORY},inferences_per_write=100,time_per_inference=0.001,inferences_per_read=8"
    caption = describe_study(
        emulate("digits-bnn", memory=memory, trials=1, images=3, place={"buffer:*": "fefet:domains=200"}).resolved
    )
    assert "8 inferences share one read of the weights (inferences_per_read)" in caption or "1 to 8 inferences" in caption
    assert "Left out: arithmetic (MACs) and activations outside these memories" in caption


def test_caption_says_that_rounding_counts_as_flips() -> None:
    """Without any error, check bits in place of the low bits of a weight change some of them, and a plain memory none."""
    rounded, plain = (emulate("digits-qnn", memory=f"{front}uniform:ber=0", trials=1, images=3) for front in ("in-place+", ""))
    assert rounded.summary["flip_rate"][0] > 0.1
    assert plain.summary["flip_rate"][0] == 0.0
    for describe in (lambda result: describe_study(result.resolved), lambda result: "\n".join(describe_briefly(result))):
        assert "in-place rounds" in describe(rounded)
        assert "rounds" not in describe(plain)


def test_caption_of_the_figure_fits() -> None:
    """Oracle: the extents of the texts as Matplotlib draws them."""
    place = {"conv1": "uniform:ber=0.001", "conv2": "secded+uniform:ber=0.001"}
    figure = plot_study(emulate("digits-qnn", memory="in-place+sram-14nm", place=place, sweep="v_over_vmin=0.9", images=3))
    figure.canvas.draw()
    assert len(figure.texts) == 2  # the title and the caption
    for text in figure.texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, text


def test_a_swept_sharing_is_told_as_a_range() -> None:
    result = emulate("digits-bnn", memory=MEMORY, sweep="inferences_per_read=1,10,100", trials=1, images=3)
    assert result.summary["energy"].to_list() == pytest.approx([0.0110156 * 59616 / n for n in (1, 10, 100)], rel=1e-5)
    assert "1 to 100 inferences share one read of the weights" in describe_study(result.resolved)


def test_parts_are_picojoules_and_add_up() -> None:
    """Ratios have no parts in picojoules: a SECDED code adds 8 check bits to 64, wherever its data fill whole words."""
    joules = emulate("digits-bnn", memory=f"secded+{MEMORY}", trials=1, images=3).frame
    parts = {name: joules[name][0] for name in joules.columns if name.startswith("energy_pJ[")}
    assert set(parts) == {"energy_pJ[read]", "energy_pJ[check bits]"}
    assert sum(parts.values()) == pytest.approx(joules["energy"][0])
    assert parts["energy_pJ[read]"] == pytest.approx(0.0110156 * 59616, rel=1e-5)
    ratio = emulate("digits-bnn", memory="secded+sram-14nm:v_over_vmin=1", trials=1, images=3).frame
    assert not [name for name in ratio.columns if name.startswith("energy_pJ[")]
    assert ratio["energy"][0] == pytest.approx(joules["energy"][0] / parts["energy_pJ[read]"])


def older(frame: pl.DataFrame) -> pl.DataFrame:
    """The table as schema version 1 had it."""
    return (
        frame.drop("reads_per_inference")
        .rename({"access_latency_ns": "latency_ns"})
        .with_columns(schema_version=pl.lit(1, pl.Int32))
    )


@pytest.mark.parametrize(("policy", "kept"), [("load", False), ("image", True)])
def test_results_of_schema_1_are_read_without_the_energies_that_hung_on_the_data(tmp_path: Path, policy: str, kept: bool) -> None:
    result = emulate("digits-bnn", memory=MEMORY, read_every=policy, trials=2, images=3)
    folder = result.save(tmp_path / "out")
    old = older(result.frame)
    old.write_parquet(folder / "results.parquet")
    points = read_report_data(folder, extras=False).points
    assert points["access_latency_ns"].to_list() == pytest.approx([3.921])
    assert points["reads_per_inference"].null_count() == 1
    assert points["energy"].to_list() == (result.summary["energy"].to_list() if kept else [None])
    assert points["mean"].to_list() == result.summary["mean"].to_list()
    frame = restate_frame(old)
    row = restate_columns(old.row(0, named=True))
    assert {name: row[name] for name in frame.columns} == frame.row(0, named=True)
    assert restate_frame(result.frame).equals(result.frame)


def test_ratios_of_schema_1_stay() -> None:
    old = older(emulate("digits-bnn", memory="sram-14nm:v_over_vmin=0.9", trials=1, images=3).frame)
    assert restate_frame(old)["energy"].to_list() == old["energy"].to_list()


def test_study_json_says_what_the_energies_count(tmp_path: Path) -> None:
    folder = emulate("digits-bnn", memory=MEMORY, read_every="batch", batch=4, trials=1, images=3).save(tmp_path / "out")
    (point,) = json.loads((folder / "study.json").read_text(encoding="utf-8"))["points"]
    assert (point["reads_per_inference"], point["inferences_per_read"]) == (0.25, [4.0])
    assert point["access_latency_ns"] == pytest.approx(3.921)
