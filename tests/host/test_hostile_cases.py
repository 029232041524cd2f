"""Small hostile inputs of every kind, from the command line: a result, or one paragraph and a documented exit code.

What holds for all: no error without a type leaves, no control character reaches the terminal, a file outside the folder stays as it
was, and nothing waits for ever.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import signal
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from tests.endurance.commands import CAMPAIGN, write_cycles
from weakcell.host.cli import app
from weakcell.host.study.networks import SHIPPED_FOLDER

pytestmark = pytest.mark.skipif(os.name != "posix" or not hasattr(os, "mkfifo"), reason="links, pipes and devices of POSIX")

SECONDS = 300
"""Seconds of wall time after which a command counts as waiting for ever; kernels may be compiled."""
FEW = ("digits-bnn", "--images", "5", "--trials", "1", "--memory", "uniform:ber=0.1", "--quiet")
VICTIM = b"precious"


class Place(NamedTuple):
    """Where a case runs.

    Attributes:
        folder: the current folder, empty.
        victim: a file outside it, which must stay as it is.
    """

    folder: Path
    victim: Path

    def write(self, name: str, content: bytes | str) -> str:
        """Write a file and return its name."""
        (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def pipe(self, name: str) -> str:
        """Make a pipe that nobody writes to, and return its name."""
        os.mkfifo(self.folder / name)
        return name

    def link(self, name: str, target: Path | str) -> str:
        """Make a link and return its name."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).symlink_to(target)
        return name


Prepare = Callable[[Place], tuple[str, ...]]
CASES: dict[str, tuple[Prepare, tuple[int, ...]]] = {}


def case(*codes: int) -> Callable[[Prepare], Prepare]:
    """Register a case; codes: exit codes that it may end with."""

    def register(prepare: Prepare) -> Prepare:
        CASES[prepare.__name__.strip("_")] = prepare, codes
        return prepare

    return register


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study."""
    folder = tmp_path_factory.mktemp("study") / "out"
    assert CliRunner().invoke(app, ["emulate", *FEW, "--out", str(folder)]).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign."""
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "c.toml").write_text(CAMPAIGN)
    assert CliRunner().invoke(app, ["sweep", str(folder / "c.toml"), "--out", str(folder / "out"), "--quiet"]).exit_code == 0
    return folder / "out"


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the command waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# --- links and devices where results are written ----------------------------------------------------------------------------------


@case(0)
def _results_are_a_link(place: Place) -> tuple[str, ...]:
    place.link("out/results.parquet", place.victim)
    return "emulate", *FEW, "--out", "out", "--overwrite"


@case(0)
def _study_is_a_link_to_nothing(place: Place) -> tuple[str, ...]:
    place.link("out/study.json", place.victim.with_name("new"))
    return "emulate", *FEW, "--out", "out"


@case(0)
def _fault_list_is_a_link(place: Place) -> tuple[str, ...]:
    return "emulate", *FEW, "--save-faults", place.link("f.parquet", place.victim)


@case(6)
def _folder_is_a_pipe(place: Place) -> tuple[str, ...]:
    return "emulate", *FEW, "--out", place.pipe("out")


@case(6)
def _outputs_into_a_pipe(place: Place) -> tuple[str, ...]:
    np.savez(place.folder / "in.npz", x=np.zeros((1, 1, 8, 8), np.float32))
    return "infer", "digits-bnn", "--input", "in.npz", "--output", place.pipe("out.npz")


@case(6)
def _report_into_a_device(place: Place) -> tuple[str, ...]:
    return "report", "study", "--out", "/dev/full"


@case(0, 6)
def _write_ahead_log_is_a_link(place: Place) -> tuple[str, ...]:
    place.write("c.toml", CAMPAIGN)
    for end in ("-wal", "-shm", "-journal"):
        place.link(f"out/runs.sqlite{end}", place.victim)
    return "sweep", "c.toml", "--out", "out", "--quiet"


@case(0, 3, 6)
def _log_of_an_archive_is_a_link(place: Place) -> tuple[str, ...]:
    for end in ("-wal", "-shm", "-journal"):
        (place.folder / f"campaign/runs.sqlite{end}").unlink(missing_ok=True)
        place.link(f"campaign/runs.sqlite{end}", place.victim)
    return "report", "campaign", "--out", "r.html"


@case(6)
def _store_is_a_device(place: Place) -> tuple[str, ...]:
    place.write("c.toml", CAMPAIGN)
    place.link("out/runs.sqlite", "/dev/zero")
    return "sweep", "c.toml", "--out", "out", "--quiet"


# --- pipes, devices and folders in place of inputs --------------------------------------------------------------------------------


@case(3, 4)
def _network_is_a_pipe(place: Place) -> tuple[str, ...]:
    return "inspect", place.pipe("n.onnx")


@case(3, 4)
def _network_is_endless(place: Place) -> tuple[str, ...]:
    return "emulate", place.link("n.onnx", "/dev/zero")


@case(3)
def _fault_list_is_endless(place: Place) -> tuple[str, ...]:
    return "emulate", *FEW, "--faults", place.link("f.csv", "/dev/zero")


@case(3)
def _campaign_is_a_pipe(place: Place) -> tuple[str, ...]:
    return "sweep", place.pipe("c.toml"), "--out", "out"


@case(3)
def _inputs_are_a_pipe(place: Place) -> tuple[str, ...]:
    return "infer", "digits-bnn", "--input", place.pipe("in.npz"), "--output", "out.npz"


@case(2)
def _settings_of_training_are_endless(place: Place) -> tuple[str, ...]:
    return "train", place.link("t.toml", "/dev/zero"), "--out", "out"


@case(3)
def _store_is_a_pipe(place: Place) -> tuple[str, ...]:
    (place.folder / "out").mkdir()
    place.pipe("out/runs.sqlite")
    return "report", "out", "--out", "r.html"


@case(3)
def _study_is_a_pipe(place: Place) -> tuple[str, ...]:
    (place.folder / "study" / "study.json").unlink()
    place.pipe("study/study.json")
    return "report", "study", "--out", "r.html"


@case(3)
def _results_are_endless(place: Place) -> tuple[str, ...]:
    (place.folder / "study" / "results.parquet").unlink()
    place.link("study/results.parquet", "/dev/zero")
    return "report", "study", "--out", "r.html"


@case(3, 5)
def _recording_is_a_pipe(place: Place) -> tuple[str, ...]:
    return "emulate", "digits-bnn", "--memory", f"recording:{place.pipe('r')}"


@case(3, 4)
def _external_data_are_a_pipe(place: Place) -> tuple[str, ...]:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 4), np.eye(4, dtype=np.float32).tobytes(), raw=True)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place.pipe("w.bin"))
    return "inspect", _save(place, [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])


# --- names ------------------------------------------------------------------------------------------------------------------------


@case(3)
def _data_of_an_escaping_name(place: Place) -> tuple[str, ...]:
    return "emulate", "digits-bnn", "--data", "\x1b]0;owned\x07\x1b[2J.npz"


@case(3)
def _memory_of_an_escaping_name(place: Place) -> tuple[str, ...]:
    return "emulate", "digits-bnn", "--memory", "file:\x1b[31m\u202e.toml"


@case(2)
def _layer_of_an_escaping_name(place: Place) -> tuple[str, ...]:
    return "emulate", "digits-bnn", "--place", "\x9b31m\n\rError=uniform:ber=0"


@case(0)
def _network_that_writes_escapes(place: Place) -> tuple[str, ...]:
    model = onnx.load(SHIPPED_FOLDER / "digits_bnn.onnx")
    model.graph.name = "\x1b[2Jgraph\u2028\u202e"
    model.producer_name = "\x1b]0;owned\x07"
    for node in model.graph.node:
        node.name = f"=cmd|' /C calc'!A0\x1b[31m{node.name}"
    onnx.save(model, place.folder / "n.onnx")
    return "inspect", "n.onnx"


@case(3)
def _campaign_with_nul_in_a_path(place: Place) -> tuple[str, ...]:
    text = '[[network]]\nmodel = "a\\u0000b.onnx"\ndata = "d\\u0000.npz"\n[[memory]]\nspec = "uniform:ber=0.1"\n'
    return "sweep", place.write("c.toml", text), "--dry-run"


@case(3)
def _campaign_with_nul_in_a_memory(place: Place) -> tuple[str, ...]:
    text = '[[network]]\nmodel = "digits-bnn"\n[[memory]]\nspec = "file:p\\u0000.toml"\n[[memory]]\nspec = "recording:r\\u0000"\n'
    return "sweep", place.write("c.toml", text), "--dry-run"


@case(0)
def _report_of_a_title_with_markup(place: Place) -> tuple[str, ...]:
    stated = json.loads((place.folder / "study/study.json").read_text())
    stated["model"]["name"] = "</title><script>alert(1)</script>\x1b[31m$\\foo{$"
    place.write("study/study.json", json.dumps(stated))
    return "report", "study", "--out", "r.html"


@case(3)
def _network_of_a_long_name(place: Place) -> tuple[str, ...]:
    """Longer than the system stores: asking whether there is such a file is an error."""
    return "inspect", "n" * 300


@case(3)
def _data_of_a_long_name(place: Place) -> tuple[str, ...]:
    return "emulate", "digits-bnn", "--data", "d" * 300


@case(3)
def _data_folder_of_a_long_name(place: Place) -> tuple[str, ...]:
    return "emulate", "fashion-bnn", "--data", "svhn", "--data-dir", "d" * 300


@case(6)
def _results_of_a_long_name(place: Place) -> tuple[str, ...]:
    return "emulate", *FEW, "--out", "n" * 300


@case(6)
def _campaign_into_a_long_name(place: Place) -> tuple[str, ...]:
    return "sweep", place.write("c.toml", CAMPAIGN), "--out", "n" * 300


@case(6)
def _runs_of_training_in_a_long_name(place: Place) -> tuple[str, ...]:
    return "train", "--data", "digits", "--width", "0.05", "--epochs", "1", "--images", "50", "--out", "n" * 300


@case(6)
def _figures_in_a_long_name(place: Place) -> tuple[str, ...]:
    return "report", "study", "--out", "r.html", "--figures", "n" * 300


@case(6)
def _import_into_a_long_name(place: Place) -> tuple[str, ...]:
    write_cycles(place.folder / "cycles.csv")
    return "characterize", "--import", "cycles.csv", "--out", "n" * 300


# --- imports and boards that files name -------------------------------------------------------------------------------------------


@case(3)
def _import_through_a_linked_folder(place: Place) -> tuple[str, ...]:
    place.link("inside", place.victim.parent)
    return _import(place, f"inside/{place.victim.name}")


@case(3)
def _import_from_above(place: Place) -> tuple[str, ...]:
    return _import(place, f"./x/../../{place.victim.parent.name}/{place.victim.name}")


@case(3)
def _import_of_a_device(place: Place) -> tuple[str, ...]:
    return _import(place, place.link("zero.bin", "/dev/zero"))


@case(3)
def _import_with_nul(place: Place) -> tuple[str, ...]:
    return _import(place, "a\\u0000b")


def _import(place: Place, name: str) -> tuple[str, ...]:
    text = f'[[points]]\nvdd = 0.5\nwritten = "zeros"\nreads = ["{name}"]\n'
    return "characterize", "--import", place.write("r.toml", text), "--out", "out"


@case(2)
def _board_behind_a_wrapper(place: Place) -> tuple[str, ...]:
    text = '[[network]]\nmodel = "digits-bnn"\nimages = 5\n[[memory]]\nspec = "secded+board:/dev/ttyACM0:vdd=0.8"\n'
    return "sweep", place.write("c.toml", text), "--out", "out"


@case(2)
def _board_in_a_placement(place: Place) -> tuple[str, ...]:
    text = '[[network]]\nmodel = "digits-bnn"\nimages = 5\n[[memory]]\nspec = "uniform:ber=0"\n'
    text += '[[placement]]\nrules = { "*@0" = "board:/dev/ttyACM0:vdd=0.8" }\n'
    return "sweep", place.write("c.toml", text), "--out", "out"


@case(0)
def _board_in_a_stored_study(place: Place) -> tuple[str, ...]:
    stated = json.loads((place.folder / "study/study.json").read_text())
    stated["identity"]["memory"] = "board:tcp:127.0.0.1:1:vdd=0.8"
    place.write("study/study.json", json.dumps(stated))
    return "report", "study", "--out", "r.html"


# --- pickles, archives, bombs -----------------------------------------------------------------------------------------------------


class _Opener:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch owned",)


def _cifar(place: Place, batch: bytes) -> tuple[str, ...]:
    folder = place.folder / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (folder / name).write_bytes(batch)
    return "emulate", "digits-bnn", "--data", "cifar10", "--data-dir", ".", "--images", "1"


@case(3)
def _pickle_that_calls(place: Place) -> tuple[str, ...]:
    return _cifar(place, pickle.dumps({"data": _Opener(), "labels": []}))


@case(3)
def _pickle_that_doubles(place: Place) -> tuple[str, ...]:
    return _cifar(place, b"\x80\x04](" + b"(h\x00h\x00l\x94" * 60 + b".")


@case(3)
def _pickle_of_vast_bytes(place: Place) -> tuple[str, ...]:
    return _cifar(place, b"\x80\x05\x8e" + struct.pack("<Q", 1 << 62) + b"abc.")


@case(3)
def _pickle_of_a_deep_list(place: Place) -> tuple[str, ...]:
    return _cifar(place, b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".")


@case(3)
def _archive_of_a_million_names(place: Place) -> tuple[str, ...]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"")
    head, tail = file.getvalue(), b""
    at = head.index(b"PK\1\2")
    entry, end = head[at : head.index(b"PK\5\6")], head[head.index(b"PK\5\6") :]
    tail = entry * 50_000
    end = end[:8] + struct.pack("<HHII", 65535, 65535, len(tail), at) + end[20:]
    return "emulate", "digits-bnn", "--data", place.write("d.npz", head[:at] + tail + end)


@case(3)
def _archive_of_an_archive(place: Place) -> tuple[str, ...]:
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(place.folder / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header + bytes(1 << 24))
        archive.writestr("y.npy", header + bytes(1 << 24))
    return "emulate", "digits-bnn", "--data", "d.npz"


@case(3)
def _objects_in_an_archive(place: Place) -> tuple[str, ...]:
    np.savez(place.folder / "d.npz", x=np.array([_Opener()], dtype=object), y=np.zeros(1, int))
    return "emulate", "digits-bnn", "--data", "d.npz"


@case(3)
def _images_that_unpack_for_ever(place: Place) -> tuple[str, ...]:
    folder = place.folder / "fashion"
    folder.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        head = struct.pack(">IIII", 0x803, 60_000, 28, 28) if "images" in name else struct.pack(">II", 0x801, 60_000)
        (folder / f"{name}-ubyte.gz").write_bytes(
            gzip.compress(head + bytes(1 << 28), 1) if "t10k" in name else gzip.compress(head)
        )
    return "emulate", "fashion-bnn", "--data", "fashion-mnist", "--data-dir", "fashion", "--images", "1"


@case(2)
def _settings_nested_deep(place: Place) -> tuple[str, ...]:
    return "train", place.write("t.toml", "run = " + "{a = " * 5000 + "1" + "}" * 5000), "--out", "out"


_LONG_KEY = "a." * 200_000 + "b = 1\n"
"""Python's parser would take hours: its time grows with the square of the parts."""


@case(2)
def _settings_of_a_long_key(place: Place) -> tuple[str, ...]:
    return "train", place.write("t.toml", "[run]\n" + _LONG_KEY), "--out", "out"


@case(3)
def _campaign_of_a_long_key(place: Place) -> tuple[str, ...]:
    return "sweep", place.write("c.toml", CAMPAIGN + _LONG_KEY.replace("a.", "'a b' . ")), "--out", "out"


@case(3)
def _profile_of_a_long_table(place: Place) -> tuple[str, ...]:
    return "memories", "--check", place.write("p.toml", "[" + "a." * 200_000 + "b]\n")


@case(3)
def _read_backs_of_a_long_key(place: Place) -> tuple[str, ...]:
    return "characterize", "--import", place.write("r.toml", "x = { " + _LONG_KEY.strip() + " }"), "--out", "out"


@case(5)
def _memory_with_thousands_of_wrappers(place: Place) -> tuple[str, ...]:
    return "emulate", *FEW[:-3], "--memory", "secded+" * 100_000 + "uniform:ber=0.1"


@case(3)
def _fault_list_of_one_long_line(place: Place) -> tuple[str, ...]:
    return "emulate", *FEW, "--faults", place.write("f.csv", "tensor," + "a" * (1 << 25))


@case(3)
def _fault_list_of_numbers_beyond_bits(place: Place) -> tuple[str, ...]:
    text = f"tensor,element,bit,stored,read\nw,{10**400},{-(10**30)},1e999,nan\n"
    return "emulate", *FEW, "--faults", place.write("f.csv", text)


def _save(place: Place, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto] | None = None) -> str:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", 4)) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return place.write("n.onnx", model.SerializeToString())


@case(4)
def _constant_of_2_to_60(place: Place) -> tuple[str, ...]:
    shape = helper.make_tensor("s", TensorProto.INT64, (2,), [1 << 30, 1 << 30])
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("MatMul", ["x", "c"], ["y"])]
    return "inspect", _save(place, nodes, [shape])


@case(4)
def _range_without_end(place: Place) -> tuple[str, ...]:
    scalars = [helper.make_tensor(name, TensorProto.INT64, (), [value]) for name, value in (("a", 0), ("b", (1 << 62)), ("c", 1))]
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["r"]),
        helper.make_node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    return "inspect", _save(place, nodes, scalars)


@case(4)
def _tile_of_tiles(place: Place) -> tuple[str, ...]:
    repeats = helper.make_tensor("r", TensorProto.INT64, (2,), [1, 1 << 20])
    nodes = [helper.make_node("Tile", [f"t{i}" if i else "x", "r"], [f"t{i + 1}" if i < 9 else "y"]) for i in range(10)]
    return "inspect", _save(place, nodes, [repeats])


@case(4)
def _network_that_claims_more_than_it_has(place: Place) -> tuple[str, ...]:
    weight = onnx.TensorProto(name="w", data_type=TensorProto.INT8, dims=[1 << 40, 1 << 20], raw_data=b"1")
    return "inspect", _save(place, [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])


# --- stored results that lie ------------------------------------------------------------------------------------------------------


@case(3, 6)
def _store_with_a_trigger(place: Place) -> tuple[str, ...]:
    with sqlite3.connect(place.folder / "campaign/runs.sqlite") as db:
        db.execute("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END")
    place.write("c.toml", CAMPAIGN)
    return "sweep", "c.toml", "--out", "campaign", "--quiet"


@case(3, 6)
def _store_of_another_program(place: Place) -> tuple[str, ...]:
    (place.folder / "out").mkdir()
    with sqlite3.connect(place.folder / "out/runs.sqlite") as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    place.write("c.toml", CAMPAIGN)
    return "sweep", "c.toml", "--out", "out", "--quiet"


@case(3)
def _study_of_deep_json(place: Place) -> tuple[str, ...]:
    place.write("study/study.json", '{"a":' * 100_000 + "1" + "}" * 100_000)
    return "report", "study", "--out", "r.html"


@case(3)
def _study_of_half_a_character(place: Place) -> tuple[str, ...]:
    stated = (place.folder / "study/study.json").read_text()
    place.write("study/study.json", stated.replace("digits-bnn", "\\ud800"))
    return "report", "study", "--out", "r.html"


@case(3)
def _results_without_a_row(place: Place) -> tuple[str, ...]:
    _change_results(place, lambda frame: frame.head(0))
    return "report", "study", "--out", "r.html"


@case(3)
def _results_with_more_than_all_right(place: Place) -> tuple[str, ...]:
    _change_results(place, lambda frame: frame.with_columns(accuracy=pl.lit(1.5)))
    return "report", "study", "--out", "r.html"


def _change_results(place: Place, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    file = place.folder / "study" / "results.parquet"
    change(pl.read_parquet(file)).write_parquet(file)


@case(3)
def _results_that_are_no_table(place: Place) -> tuple[str, ...]:
    place.write("study/results.parquet", b"PAR1" + b"\xff" * 64 + struct.pack("<I", 1 << 31) + b"PAR1")
    return "report", "study", "--out", "r.html"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_hostile_input(name: str, tmp_path: Path, study: Path, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, codes = CASES[name]
    place = Place(tmp_path / "folder", tmp_path / "outside" / "victim")
    for folder in (place.folder, place.victim.parent):
        folder.mkdir()
    place.victim.write_bytes(VICTIM)
    monkeypatch.chdir(place.folder)
    source = prepare.__code__.co_names + prepare.__code__.co_consts
    if any("study" in str(part) for part in source):
        shutil.copytree(study, place.folder / "study")
    if any("campaign/" in str(part) for part in source):
        shutil.copytree(campaign, place.folder / "campaign")
    result = CliRunner().invoke(app, list(prepare(place)))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in codes, result.output
    assert not {character for character in result.output if ord(character) < 32 and character not in "\n\t\r"}, result.output
    assert not any(mark in result.output for mark in ("Traceback", "\x9b", "\u202e", "\u2028"))
    assert place.victim.read_bytes() == VICTIM
    assert {file.name for file in place.victim.parent.iterdir()} == {"victim"}
    assert not (place.folder / "owned").exists()
    if result.exit_code:
        assert "Error" in result.output, result.output
        assert len(result.output) < 4000, result.output
