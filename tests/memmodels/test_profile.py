"""Profiles: written and read without loss, loaded as memories, refused with advice where they are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memmodels.memories import LAYOUTS, get, put
from tests.memmodels.test_catalogue import one_paragraph
from weakcell.memmodels import Cells, ErrorTerm, Lifetime, open_memory, parse_spec
from weakcell.memmodels.error_model.levels import LevelTerm
from weakcell.memmodels.error_model.structure import Bank, Lines, Shared
from weakcell.memmodels.errors import InputError, MemorySpecError, OutputError
from weakcell.memmodels.profile import Constant, OperatingPoint, ProbitLaw, Profile, load
from weakcell.memmodels.simulated import SimulatedMemory

FINITE = st.floats(allow_nan=False, allow_infinity=False)
RATE = st.floats(0.0, 0.5)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORD = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
BANKS = st.builds(Bank, st.integers(1, 4096), st.integers(1, 4096))
STRUCTURES = st.none() | st.builds(Shared, st.sampled_from(["column", "row", "bank"]), st.floats(0.0, 0.99), BANKS) | st.builds(
    Lines, st.integers(1, 512), st.floats(0.01, 1.0)
)  # fmt: skip
ERRORS = st.one_of(
    st.builds(ErrorTerm, TEXT, st.sampled_from([Lifetime.READ]), RATE, RATE, st.sampled_from(list(Cells))),
    st.builds(ErrorTerm, TEXT, st.just(Lifetime.WRITE), RATE, RATE, only_switched=st.booleans()),
    st.builds(ErrorTerm, TEXT, st.just(Lifetime.DIE), RATE, RATE, failure_probability=st.floats(0.0, 1.0), structure=STRUCTURES),
    st.builds(ErrorTerm, TEXT, st.just(Lifetime.DIE), st.just(0.0), RATE, structure=STRUCTURES, preference=st.just("zero")),
    st.builds(ErrorTerm, TEXT, st.just(Lifetime.ACCUMULATING), RATE, RATE, exposure=st.sampled_from(["reads", "time"]),
              resampled=st.booleans(), structure=STRUCTURES, preference=st.sampled_from(["cell", "row"])),
)  # fmt: skip
LEVELS = st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5)).map(
    lambda p: LevelTerm("levels", (p[0], p[0], p[1], 0.0), (0.0, p[1], p[0], p[1]), "binary")
)
CONSTANTS = st.builds(
    Constant,
    TEXT,
    FINITE,
    TEXT,
    st.floats(allow_nan=False),
    st.floats(allow_nan=False),
    st.sampled_from(["measured", "assumed"]),
    TEXT,
)
ARRAYS = st.dictionaries(WORD, st.lists(FINITE, max_size=4).map(np.array), max_size=2)
PLAIN = {"title": TEXT, "source": TEXT, "notes": TEXT, "constants": st.lists(CONSTANTS, max_size=3).map(tuple), "arrays": ARRAYS}
POINTS = st.dictionaries(WORD, FINITE | TEXT, min_size=1, max_size=2).flatmap(
    lambda conditions: st.lists(
        st.builds(OperatingPoint, st.just(conditions), st.lists(ERRORS | LEVELS, max_size=3).map(tuple)), min_size=1, max_size=2
    ).map(tuple)
)
LAWS = st.builds(
    ProbitLaw, WORD, TEXT, FINITE, FINITE, FINITE, st.floats(1e-6, 10.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0),
    st.builds(ErrorTerm, TEXT, st.just(Lifetime.DIE), st.just(0.0), st.just(0.0), structure=STRUCTURES),
)  # fmt: skip
PROFILES = st.builds(Profile, TEXT, POINTS, **PLAIN) | st.builds(Profile, TEXT, law=LAWS, **PLAIN)

TERM = ErrorTerm("die", Lifetime.DIE, 0.01, 0.02, structure=Shared("column", 0.4, Bank(512, 32)), failure_probability=0.5)
BOARD = Profile(
    "board",
    (OperatingPoint({"vdd": 0.5, "pattern": "random"}, (TERM,)), OperatingPoint({"vdd": 0.6, "pattern": "random"}, ())),
    constants=(Constant("p", 0.01, "", 0.008, 0.013), Constant("F", 1.0, "", 1.0, 1.0, "assumed")),
    title="A board",
    source="measured here",
)
LAW = ProbitLaw("vdd", "V", 0.5, 0.7, 0.4, 0.05, 0.5, 1.0, ErrorTerm("access", Lifetime.DIE, 0.0, 0.0))


@given(PROFILES)
def test_profiles_round_trip_exactly(tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> None:
    path = profile.save(tmp_path_factory.getbasetemp() / "profile.toml")
    again = load(path)
    assert again == profile
    assert again.arrays.keys() == profile.arrays.keys()
    assert all(np.array_equal(array, again.arrays[name]) for name, array in profile.arrays.items())
    assert again.save(path.with_name("again.toml")).read_text().replace("again.npz", "profile.npz") == path.read_text()


def test_a_profile_loads_as_a_memory(tmp_path: Path) -> None:
    path = BOARD.save(tmp_path / "board.toml")
    spec = parse_spec(f"file:{path}:vdd=0.5")
    assert parse_spec(str(spec)) == spec
    spec.check()
    memory = open_memory(spec, seed=2, die=3)
    assert isinstance(memory, SimulatedMemory)
    assert memory.terms == (TERM,)
    region = put(memory, LAYOUTS[5])
    assert get(memory, region)[1].flips > 0
    assert get(memory.at(vdd=0.6), region)[1].flips == 0
    assert open_memory(f"secded+file:{path}:vdd=0.5").conditions == {"vdd": 0.5, "pattern": "random"}


def test_a_law_loads_as_a_memory_with_nested_dies(tmp_path: Path) -> None:
    path = Profile("law", law=LAW).save(tmp_path / "law.toml")
    memory = open_memory(f"file:{path}:vdd=0.5")
    (term,) = memory.at(vdd=0.55).terms
    assert term.p10 == pytest.approx(2 * term.p01) == pytest.approx(0.5 * 0.00270, rel=0.01)
    region = put(memory, LAYOUTS[5])
    few, many = (get(memory.at(vdd=vdd), region)[0] ^ region.written for vdd in (0.55, 0.5))
    assert few.any()
    assert not (few & ~many).any()
    assert parse_spec(f"file:{path}").technology.sweep == "vdd"
    with pytest.raises(MemorySpecError, match=r"0\.5 … 0\.7 V"):
        memory.at(vdd=0.49)


def test_the_page_of_a_profile_shows_every_constant_with_its_basis() -> None:
    tech = BOARD.technology()
    assert tech.constants == (("p", "0.01 [0.008, 0.013]", "measured"), ("F", "1", "assumed"))
    assert (tech.title, tech.source, tech.basis) == ("A board", "measured here", "measured")


def test_points_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = BOARD.save(tmp_path / "board.toml")
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(f"file:{path}:vdd=0.55").check()
    assert "vdd=0.5, pattern=random; vdd=0.6" in one_paragraph(caught.value)
    with pytest.raises(MemorySpecError, match="random"):
        parse_spec(f"file:{path}:pattern=ones")


BROKEN = {
    "no toml": "name = ",
    "no schema": "name = 'x'",
    "another schema": "schema = 3\nname = 'x'",
    "nothing in it": "schema = 1\nname = 'x'",
    "no name": "schema = 1\n[[points]]\nconditions = {}\nterms = []",
    "no terms": "schema = 1\nname = 'x'\n[[points]]\nconditions = {}",
    "unknown kind": "schema = 1\nname = 'x'\n[[points]]\nconditions = {}\nterms = [{kind='magic'}]",
    "unknown field": "schema = 1\nname = 'x'\n[[constants]]\ncolour = 1\n[[points]]\nconditions = {}\nterms = []",
    "a rate above one": "schema = 1\nname = 'x'\n[[points]]\nconditions = {}\nterms = [{kind='errors', name='a', lifetime='read', "
    "p01=2.0, p10=0.0, cells='prefer'}]",
    "bad lifetime": "schema = 1\nname = 'x'\n[[points]]\nconditions = {}\nterms = [{kind='errors', name='a', lifetime='year', "
    "p01=0.0, p10=0.0, cells='prefer'}]",
    "points of other conditions": "schema = 1\nname = 'x'\n[[points]]\nconditions = {a=1}\nterms = []\n[[points]]\n"
    "conditions = {b=1}\nterms = []",
    "terms of numbers": "schema = 1\nname = 'x'\n[[points]]\nconditions = {}\nterms = [1]",
    "bad basis": "schema = 1\nname = 'x'\nbasis = 'guessed'\n[[points]]\nconditions = {}\nterms = []",
    "arrays that are missing": "schema = 1\nname = 'x'\narrays = 'none.npz'\n[[points]]\nconditions = {}\nterms = []",
    "points of numbers": "schema = 1\nname = 'x'\npoints = 3",
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_files_are_told_in_one_paragraph(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(BROKEN[name])
    with pytest.raises(InputError) as caught:
        open_memory(f"file:{path}")
    assert "x.toml" in one_paragraph(caught.value)


def test_missing_and_binary_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.toml", "binary.toml", "."):
        with pytest.raises(InputError) as caught:
            parse_spec(f"file:{tmp_path / name}")
        one_paragraph(caught.value)


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        BOARD.save(tmp_path / "nowhere" / "x.toml")


def test_arrays_lie_beside(tmp_path: Path) -> None:
    profile = replace(BOARD, arrays={"faulty": np.arange(5)})
    path = profile.save(tmp_path / "b.toml")
    assert (tmp_path / "b.npz").exists()
    assert load(path).arrays["faulty"].tolist() == [0, 1, 2, 3, 4]
