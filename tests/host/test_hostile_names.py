"""Names of files, tensors and memories with any legal character.

Truth: the bytes of the names, XML's and HTML's own parsers, and Unicode's categories of characters.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
import warnings
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from weakcell import emulate, load_data, read_results
from weakcell.host.digests import memory_file_sha256
from weakcell.host.report.matplotlib_charts import label_decades, save_figure, tick_label
from weakcell.host.study.networks import SHIPPED_FOLDER, find_model
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.printable import printable, printable_name
from weakcell.memmodels.profile import OperatingPoint, Profile, load

NAME = os.fsdecode(b"-=[1]*$x$ \\$\\foo{$\n\t\x1b[31m\xc2\x9b\xe2\x80\xae\xff")
"""An option, a formula, patterns, Matplotlib's formulas, control characters of both sets, an override, and no UTF-8."""


def test_printable_text_has_no_character_that_steers() -> None:
    every = "".join(map(chr, range(0x110000)))
    shown = printable_name(every)
    assert not {character for character in shown if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")}
    assert not {character for character in shown if unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF")}
    assert printable("a\n\tb") == "a\n\tb"
    assert printable_name("conv1.weight:0/ü漢") == "conv1.weight:0/ü漢"


class _Title(HTMLParser):
    text = ""

    def handle_data(self, data: str) -> None:
        self.text += data if self.lasttag == "title" else ""


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="file names that are not UTF-8")
def test_a_study_of_hostile_names_goes_through_results_and_report(tmp_path: Path) -> None:
    """Network, data and results folder; nothing of the names is executed, lost or shown raw."""
    model, data, folder = tmp_path / f"{NAME}.onnx", tmp_path / f"d{NAME}.npz", tmp_path / NAME
    model.write_bytes((SHIPPED_FOLDER / "digits_bnn.onnx").read_bytes())
    digits = load_data("digits").first(4)
    with data.open("wb") as file:
        np.savez(file, x=digits.x, y=digits.y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emulate(model, data, memory="uniform:ber=0.1", trials=1).save(folder)
        page = read_results(folder).report(tmp_path / f"{NAME}.html").read_text(encoding="utf-8")
    assert json.loads((folder / "study.json").read_text(encoding="utf-8"))["model"]["path"] == str(model)
    assert find_model(str(model)).name == printable_name(NAME)
    title = _Title()
    title.feed(page)
    assert printable_name(NAME) in title.text
    assert "\x1b" not in page.replace("\\u001b", "")


def test_names_in_figures_are_no_formulas(tmp_path: Path) -> None:
    """Powers of ten on a log axis are plain text, too."""
    from matplotlib.figure import Figure

    def plot() -> Figure:
        figure = Figure()
        axes = figure.subplots()
        axes.plot([1e-4, 1e-2], [0, 1], label=NAME)
        axes.set(xscale="log", title=NAME, xlabel="$$")
        axes.set_yticks([0, 1], [tick_label(NAME)] * 2)
        axes.legend()
        label_decades(axes.xaxis)
        return figure

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(plot, [tmp_path / "a.svg", tmp_path / "a.png"])
    words = [element.text or "" for element in ElementTree.parse(tmp_path / "a.svg").iter() if element.tag.endswith("text")]
    assert sum("\\foo{$" in word for word in words) >= 2
    assert {"10⁻⁴", "10⁻³", "10⁻²"} <= set(words)


def test_a_path_in_a_spec_may_have_lines(tmp_path: Path) -> None:
    path = Profile("p", (OperatingPoint({}, ()),)).save(tmp_path / "a\nb.toml")
    spec = parse_spec(f"file:{path}")
    assert spec.name == f"file:{path}"
    assert spec.technology.name == f"file:{path}"


def test_the_digest_of_a_profile_covers_its_arrays(tmp_path: Path) -> None:
    """Without arrays it is the digest of the file, as before."""
    plain = Profile("p", (OperatingPoint({}, ()),)).save(tmp_path / "plain.toml")
    assert memory_file_sha256(f"file:{plain}") == hashlib.sha256(plain.read_bytes()).hexdigest()
    path = Profile("p", (OperatingPoint({}, ()),), arrays={"a": np.arange(3)}).save(tmp_path / "p.toml")
    before = memory_file_sha256(f"parity+file:{path}")
    assert before != hashlib.sha256(path.read_bytes()).hexdigest()
    Profile("p", (OperatingPoint({}, ()),), arrays={"a": np.arange(4)}).save(tmp_path / "p.toml")
    assert memory_file_sha256(f"parity+file:{path}") != before
    assert len(load(path).arrays["a"]) == 4
