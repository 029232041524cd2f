"""Recordings: kept without loss, replayed in order, and refused where they do not hold what is asked; the contract of the seam."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.memmodels.memories import LAYOUTS, READS, Case, FakeBoard, FakeTransport, contents, get, put
from tests.memmodels.test_catalogue import one_paragraph
from tests.memmodels.test_protect_seam import CONTRACT, of_case
from weakcell.memmodels import Key, Layout, Memory, MemorySpec, open_memory, parse_spec
from weakcell.memmodels.errors import InputError, MemoryFault, MemorySpecError, OutputError, WeakcellError
from weakcell.memmodels.recording import Recording, load, record

DIE = "sram-14nm:v_over_vmin=0.85"


@dataclass(frozen=True)
class Recorded(Case):
    """A case of the contract: read-backs of its SPEC at two points, kept in a file, opened by `recording:PATH`."""

    folder: Path = Path()

    def build(self, seed: int = 1, die: int = 0) -> Memory:
        path = self.folder / f"{seed}-{die}.npz"
        if not path.exists():
            memory, tape = open_memory(self.spec, seed, die), Recording()
            for version in (0, 1):
                regions = [put(memory, layout, version) for layout in LAYOUTS]
                for point in ({}, self.worse):
                    for region in regions:
                        tape.take(memory.at(**point), region, READS)
            tape.save(path)
        return open_memory(f"recording:{path}", seed, die)


@pytest.fixture(scope="module", params=["uniform", "die", "interleaved"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    if request.param == "uniform":
        return Recorded("recording of uniform", "uniform:ber=0.02", {"ber": 0.2}, varies=True, folder=folder)
    if request.param == "die":
        return Recorded("recording of a die", DIE, {"v_over_vmin": 0.76}, nested=True, folder=folder)
    return Recorded("recording of a stack", f"interleave+{DIE}", {"v_over_vmin": 0.76}, nested=True, folder=folder)


@pytest.mark.parametrize("function", CONTRACT, ids=lambda one: one.__name__.removeprefix("test_"))
def test_the_contract_of_the_seam(function: Callable[..., None], case: Recorded) -> None:
    if not of_case(function, case):
        pytest.skip("its errors do not belong to the die")
    for layout in LAYOUTS if "layout" in inspect.signature(function).parameters else (None,):
        function(case, **({} if layout is None else {"layout": layout}))


LAYOUT = Layout("w", 1000, 8, erased=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three reads of one region at two points."""
    memory = open_memory("uniform:ber=0.1", 4)
    region = put(memory, LAYOUT)
    about = {"title": "A test", "source": "this file"}
    return record(tmp_path / "reads.npz", memory, [region], READS, [{"ber": 0.1}, {"ber": 0.2}], about)


def test_what_was_read_is_read_again(path: Path) -> None:
    original, replayed = open_memory("uniform:ber=0.1", 4), open_memory(f"recording:{path}")
    for point in ({"ber": 0.1}, {"ber": 0.2}):
        for read in READS:
            pair = [get(one.at(**point), put(one, LAYOUT), read) for one in (original, replayed)]
            assert np.array_equal(pair[0][0], pair[1][0])
            assert pair[0][1].flips == pair[1][1].flips


def test_recordings_round_trip(path: Path, tmp_path: Path) -> None:
    first = load(path)
    again = load(first.save(tmp_path / "again.npz"))
    assert again.about == first.about == {"title": "A test", "source": "this file"}
    assert [(r.layout, r.first_word, r.key) for r in again.regions] == [(r.layout, r.first_word, r.key) for r in first.regions]
    for one, other in zip(first.regions, again.regions, strict=True):
        assert np.array_equal(one.written, other.written)
        assert np.array_equal(one.stored, other.stored)
        assert np.array_equal(one.previous, other.previous)
    for take, other in zip(first.takes, again.takes, strict=True):
        assert (take.region, take.point, take.notes) == (other.region, other.point, other.notes)
        assert np.array_equal(take.reads, other.reads)


def test_files_hold_plain_arrays(path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        assert json.loads(str(arrays["about"]))["schema"] == 1
        assert arrays["reads/1"].shape == (3, LAYOUT.words)


def test_commanded_measured_cell_and_pass_are_kept(tmp_path: Path) -> None:
    board = FakeBoard(FakeTransport(), 0.42)
    region = put(board, LAYOUTS[0])
    tape = Recording().take(board, region, [0, 1], {"cell": 3, "pass": 7})
    (take,) = load(tape.save(tmp_path / "board.npz")).takes
    assert take.notes[1]["commanded"] == {"vdd": 0.42}
    assert take.notes[1]["measured"]["vdd"] == pytest.approx(0.407)
    assert (take.notes[1]["cell"], take.notes[1]["pass"]) == (3, 7)
    replayed = open_memory(f"recording:{tmp_path / 'board.npz'}")
    assert get(replayed, put(replayed, LAYOUTS[0]))[1].measured["vdd"] == pytest.approx(0.407)


def test_reads_beyond_the_recording_are_refused_or_start_again(path: Path) -> None:
    memory = open_memory(f"recording:{path}")
    region = put(memory, LAYOUT)
    with pytest.raises(MemoryFault) as caught:
        get(memory, region, 3)
    assert "3 reads of it were recorded" in one_paragraph(caught.value)
    cycled = open_memory(f"recording:{path}:cycle=yes")
    assert np.array_equal(get(cycled, put(cycled, LAYOUT), 7)[0], get(memory, region, 1)[0])


def test_trials_can_take_the_reads_in_turn(path: Path) -> None:
    memory = open_memory(f"recording:{path}")
    by_trial = memory.at(serve="trial")
    region, out = put(memory, LAYOUT), np.empty(LAYOUT.words, dtype=np.uint64)
    for number in READS:
        by_trial.read(region, Key(number, 0, 0), out)
        assert np.array_equal(out, get(memory, region, number)[0])
    with pytest.raises(MemoryFault, match="trial 3"):
        by_trial.read(region, Key(3, 0, 0), out)


def test_other_bits_are_refused(path: Path) -> None:
    memory = open_memory(f"recording:{path}")
    for words, layout, said in (
        (contents(LAYOUT) ^ np.uint64(1), LAYOUT, "125 of them differ"),
        (contents(LAYOUTS[0]), LAYOUTS[0], "recorded are w"),
        (np.zeros(10, np.uint64), Layout("w", 10 * 8, 8), "8000 bits were recorded"),
    ):
        with pytest.raises(MemoryFault) as caught:
            memory.write(words, layout, Key())
        assert said in one_paragraph(caught.value)


def test_points_that_were_not_recorded_are_refused(path: Path) -> None:
    spec = parse_spec(f"recording:{path}")
    for refused in (lambda: spec.at(ber=0.15).check(), lambda: open_memory(f"recording:{path}:ber=0.15")):
        with pytest.raises(MemorySpecError) as caught:
            refused()
        assert "it holds ber=0.1; ber=0.2." in one_paragraph(caught.value)
    with pytest.raises(MemorySpecError, match=r"0\.1 … 0\.2"):
        parse_spec(f"recording:{path}:ber=0.3")


def test_specs_of_recordings(path: Path) -> None:
    spec = parse_spec(f"recording:{path}:ber=0.2,cycle=yes")
    assert spec == MemorySpec(f"recording:{path}", {"ber": 0.2, "cycle": "yes"})
    assert parse_spec(str(spec)) == spec
    assert spec.technology.sweep == "ber"
    assert spec.technology.title == "A test"
    whole = MemorySpec(spec.name, spec.technology.resolve(spec.conditions))
    assert str(open_memory(whole).conditions["serve"]) == "read"


@pytest.mark.parametrize("name", ["a b.npz", "x,y=1.npz", "a+b.npz", "C:odd.npz"])
def test_paths_may_be_odd(path: Path, tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    odd.write_bytes(path.read_bytes())
    for text in (f"recording:{odd}", f"recording:{odd}:cycle=yes", f"secded+recording:{odd}:ber=0.2"):
        assert parse_spec(str(parse_spec(text))) == parse_spec(text)


def broken_files(path: Path, folder: Path) -> dict[str, Path]:
    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held}
    told = json.loads(str(arrays["about"]))
    made = {
        "missing": None,
        "not a zip": b"hello",
        "empty": b"",
        "cut short": path.read_bytes()[:-200],
        "another schema": {**arrays, "about": np.array(json.dumps({**told, "schema": 2}))},
        "no schema": {**arrays, "about": np.array("{}")},
        "a list": {**arrays, "about": np.array("[]")},
        "no json": {**arrays, "about": np.array("{")},
        "no reads": {name: array for name, array in arrays.items() if name != "reads/0"},
        "short reads": {**arrays, "reads/0": arrays["reads/0"][:, :-1]},
        "other type": {**arrays, "written/0": arrays["written/0"].astype(np.int64)},
        "objects": {**arrays, "written/0": np.array([{}], dtype=object)},
        "empty recording": {"about": np.array(json.dumps({"schema": 1, "regions": [], "takes": []}))},
    }
    files = {}
    for name, what in made.items():
        files[name] = folder / f"{name}.npz"
        if isinstance(what, bytes):
            files[name].write_bytes(what)
        elif what is not None:
            np.savez(files[name], **what)
    return files


def test_bad_files_are_told_in_one_paragraph(path: Path, tmp_path: Path) -> None:
    for name, file in broken_files(path, tmp_path).items():
        with pytest.raises(InputError) as caught:
            open_memory(f"recording:{file}")
        assert file.name in one_paragraph(caught.value), name


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        Recording().save(tmp_path / "nowhere" / "x.npz")
    assert isinstance(caught.value, WeakcellError)


def test_a_file_that_changed_is_read_again(path: Path) -> None:
    before = load(path)
    Recording({"title": "another"}, before.regions, before.takes).save(path)
    assert parse_spec(f"recording:{path}").technology.title == "another"
