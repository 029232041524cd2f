"""SPEC strings, conditions and their ranges, registration by others, and what people read when something is wrong."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memmodels.memories import contents, get
from weakcell.memmodels import (
    Cells,
    Key,
    Layout,
    Lifetime,
    MemorySpec,
    Technology,
    catalogue,
    names,
    open_memory,
    parse_spec,
    technology,
)
from weakcell.memmodels.errors import MemoryFault, MemorySpecError, WeakcellError
from weakcell.memmodels.simulated import SimulatedMemory

BUILT_IN = (
    "uniform", "sram-14nm", "sram-28nm-kc705b", "sram-28nm-vc707", "sram-6t", "dram", "ddr4", "rowhammer", "eden", "rram",
    "rram-mlc", "rram-relaxation", "sttram", "fefet",
)  # fmt: skip
GIVEN = {
    "uniform": {"ber": 0.1},
    "sram-6t": {"hold_mu": 0.2, "hold_s": 0.03},
    "eden": {"p": 0.1, "f": 0.5},
    "sttram": {"tau": 5.0},
    "fefet": {"domains": 100.0},
}
"""What a technology must be told, since nothing published says it."""


def one_paragraph(error: WeakcellError) -> str:
    """The message, after checking that it says what was asked, what was found and what to do, in one paragraph."""
    message = str(error)
    for part in (error.asked, error.found, error.do):
        assert part.strip() == part != ""
        assert part in message
        assert not part.endswith(".")
    assert "\n" not in message
    assert message.endswith(".")
    assert ".." not in message.replace("…", "")
    return message


# --- SPECs -------------------------------------------------------------------------------------------------------------------


def test_specs_of_the_design() -> None:
    assert parse_spec("uniform:ber=0.01") == MemorySpec("uniform", {"ber": 0.01})
    assert parse_spec("uniform:p01=0.01,p10=0.001,lifetime=die") == MemorySpec(
        "uniform", {"p01": 0.01, "p10": 0.001, "lifetime": "die"}
    )
    assert parse_spec("sram-14nm:v_over_vmin=0.85").conditions == {"v_over_vmin": 0.85}
    assert parse_spec("sram-28nm-kc705b:vdd=0.55").conditions == {"vdd": 0.55}
    assert parse_spec("sram-28nm-vc707") == MemorySpec("sram-28nm-vc707", {})


def test_spaces_around_items_do_not_matter_and_order_is_kept() -> None:
    spec = parse_spec(" uniform:p10 = 0.5 , p01= 1e-3 ")
    assert list(spec.conditions.items()) == [("p10", 0.5), ("p01", 0.001)]
    assert str(spec) == "uniform:p10=0.5,p01=0.001"


@given(p01=st.floats(0.0, 1.0), p10=st.floats(0.0, 1.0), lifetime=st.sampled_from(["read", "write"]))
def test_a_spec_is_written_as_it_is_read(p01: float, p10: float, lifetime: str) -> None:
    """No digit is lost: the SPEC in a result opens the same memory."""
    spec = MemorySpec("uniform", {"p01": p01, "p10": p10, "lifetime": lifetime})
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01, "0.01"), (1e-6, "1e-06"), (1.0, "1"), (0.1 + 0.2, "0.30000000000000004"), (1 / 3, "0.3333333333333333")],
)
def test_numbers_are_as_short_as_they_can_be(value: float, text: str) -> None:
    for number in (value, np.float64(value)):
        assert str(MemorySpec("uniform", {"ber": number})) == f"uniform:ber={text}"


def test_moving_a_spec_leaves_it_alone() -> None:
    spec = parse_spec("uniform:ber=0.1,lifetime=die")
    assert str(spec.at(ber=0.2)) == "uniform:ber=0.2,lifetime=die"
    assert str(spec) == "uniform:ber=0.1,lifetime=die"


def test_a_spec_without_its_swept_key_can_be_read_but_not_used() -> None:
    spec = parse_spec("uniform")
    spec.at(ber=0.5).check()
    with pytest.raises(MemorySpecError) as caught:
        spec.check()
    assert "ber=" in one_paragraph(caught.value)


# --- what is refused ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "unifrom:ber=0.1": "Did you mean uniform:ber=0.1?",
    "uniform:lifetime=die,bre=0.1": "Did you mean uniform:lifetime=die,ber=0.1?",
    "sram-14": "Did you mean sram-14nm?",
    "Uniform": "Did you mean uniform?",
    "flux-capacitor": "Known: uniform, sram-14nm",
    "": "Known: uniform",
    "uniform:": "key=value",
    "uniform:ber": "'ber' is not key=value",
    "uniform:ber=": "'ber=' is not key=value",
    "uniform:=0.1": "'=0.1' is not key=value",
    "uniform:ber=0.1,,": "'' is not key=value",
    "uniform:ber=0.1,ber=0.2": "ber is given twice",
    "uniform:rate=0.1": "It has: ber, p01, p10, lifetime, cells",
    "uniform:ber=-0.01": "0 … 1",
    "uniform:ber=1.01": "0 … 1",
    "uniform:ber=nan": "0 … 1",
    "uniform:ber=inf": "0 … 1",
    "uniform:ber=ten": "takes a number",
    "uniform:ber=0.1,lifetime=year": "read, write, die",
    "uniform:ber=0.1,cells=both": "prefer, invert",
    "sram-14nm:v_over_vmin=0.74": "0.75 … 1",
    "sram-14nm:v_over_vmin=1.01": "0.75 … 1",
    "sram-28nm-kc705b:vdd=0.52": "0.53 … 1 V",
    "sram-28nm-vc707:vdd=0.53": "0.54 … 1 V",
    "sram-28nm-kc705b:vdd=600mV": "takes a number in V",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items())
def test_bad_specs_are_refused_with_advice(text: str, said: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(text)
    assert said in one_paragraph(caught.value)
    assert caught.value.exit_code == 5


MEANT = {
    "uniform,ber=0.01": "uniform:ber=0.01",
    "uniform:ber:0.01": "uniform:ber=0.01",
    "Uniform(ber=1e-3)": "uniform:ber=1e-3",
    "uniform:ber=1 %": "uniform:ber=0.01",
    ":ber=1": "uniform:ber=1",
    "0.02": "uniform:ber=0.02",
    "v_over_vmin=0.85": "sram-14nm:v_over_vmin=0.85",
    "sram_14nm:v_over_vmin=0.85": "sram-14nm:v_over_vmin=0.85",
    "unifrom:p01=0.1:p10=0.2": "uniform:p01=0.1,p10=0.2",
    "secded": "secded+sram-14nm",
    "parity[word=8]+": "parity[word=8]+sram-14nm",
    "uniform:ber=0.1+secded": "secded+uniform:ber=0.1",
    "secded:uniform:ber=0.1": "secded+uniform:ber=0.1",
    "uniform:ber=0.1;lifetime=die": "uniform:ber=0.1,lifetime=die",
    "dram:vendor=A trcd=5": "dram:vendor=A,trcd=5",
}


@pytest.mark.parametrize(("text", "meant"), MEANT.items())
def test_a_slip_of_grammar_is_answered_with_the_spec_that_was_meant(text: str, meant: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(text)
    assert f"Did you mean {meant}?" in one_paragraph(caught.value)
    parse_spec(meant)


@given(
    st.sampled_from(
        ["uniform:p01=0.1,p10=0.25", "sram-14nm:v_over_vmin=0.9", "secded+dram:vendor=B,trcd=5", "parity[word=8]+sttram:tau=9"]
    ),
    st.data(),
)
def test_other_separators_lead_back_to_the_spec(text: str, data: st.DataObject) -> None:
    """Whatever separates the words, the message shows the SPEC with the separators of the grammar."""
    slip = "".join(data.draw(st.sampled_from(",:; ()=")) if letter in ",:=+[]" else letter for letter in text)
    try:
        assert str(parse_spec(slip)) == str(parse_spec(text))
    except MemorySpecError as error:
        assert f"Did you mean {parse_spec(text)}?" in str(error)  # noqa: PT017


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    try:
        parse_spec(text)
    except WeakcellError as error:
        assert one_paragraph(error)  # noqa: PT017


CONTRADICTIONS = {
    "uniform:ber=0.1,p01=0.1": "Give ber, or p01 and p10",
    "uniform:ber=0.6,lifetime=die": "cells=invert",
    "uniform:p01=0.6,p10=0.41,lifetime=die": "cells=invert",
    "sram-14nm:vdd=0.6": "Give both",
    "sram-14nm:vmin=0.6": "Give both",
    "sram-14nm:vdd=0.6,vmin=0.9": "0.75 … 1",
    "sram-14nm:v_over_vmin=0.9,vdd=0.6,vmin=0.7": "Give v_over_vmin, or vdd and vmin",
}


@pytest.mark.parametrize(("text", "said"), CONTRADICTIONS.items())
def test_conditions_that_contradict_each_other_are_refused(text: str, said: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        parse_spec(text).check()
    assert said in one_paragraph(caught.value)


def test_moving_a_memory_checks_the_point() -> None:
    memory = open_memory("sram-14nm:v_over_vmin=0.9")
    for wrong in ({"v_over_vmin": 0.5}, {"vdd": "low"}, {"temperature": 300.0}):
        with pytest.raises(MemorySpecError) as caught:
            memory.at(**wrong)
        one_paragraph(caught.value)


def test_errors_travel_between_processes() -> None:
    error = MemoryFault("a", "b", "c")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.asked, copy.found, copy.do, str(copy)) == (MemoryFault, "a", "b", "c", "a: b. c.")


# --- technologies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_technology_tells_its_story(name: str) -> None:
    """Conditions with meaning and range, a law, a source, a sweep that exists, constants with a basis, lifetimes."""
    tech = technology(name)
    assert tech.name == name
    assert tech.title
    assert tech.law
    assert tech.source
    assert tech.basis in ("measured", "published", "computed", "assumed")
    assert tech.sweep in [condition.name for condition in tech.conditions]
    for condition in tech.conditions:
        assert condition.help
        assert condition.range
        assert condition.choices or condition.high is None or condition.low < condition.high
    assert all(basis in ("measured", "published", "computed", "assumed") for *_, basis in tech.constants)
    conditions = tech.resolve(GIVEN.get(name, {}))
    assert set(tech.lifetimes(conditions)) <= set(Lifetime)


@pytest.mark.parametrize("name", BUILT_IN)
def test_both_ends_of_every_range_are_legal(name: str) -> None:
    tech = technology(name)
    knob = next(condition for condition in tech.conditions if condition.name == tech.sweep)
    for value in knob.choices or (knob.low, knob.high, str(knob.low), str(knob.high)):
        terms = tech.terms(tech.resolve({**GIVEN.get(name, {}), knob.name: value}))
        assert all(0 <= term.rate <= 1 for term in terms)


@pytest.mark.parametrize("lifetime", ["read", "write", "die"])
@pytest.mark.parametrize("cells", list(Cells))
def test_uniform_has_the_term_that_was_asked_for(lifetime: str, cells: Cells) -> None:
    (term,) = open_memory(f"uniform:p01=0.25,p10=0.5,lifetime={lifetime},cells={cells}").terms
    assert (term.p01, term.p10, term.lifetime, term.cells) == (0.25, 0.5, Lifetime(lifetime), cells)
    (term,) = open_memory(f"uniform:ber=0.25,lifetime={lifetime},cells={cells}").terms
    assert (term.p01, term.p10) == (0.25, 0.25)
    (term,) = open_memory(f"uniform:p10=0.25,lifetime={lifetime},cells={cells}").terms
    assert (term.p01, term.p10) == (0.0, 0.25)


def test_a_required_condition_is_asked_for() -> None:
    sram = technology("sram-28nm-vc707")
    strict = replace(sram, conditions=tuple(replace(c, default=None, required=c.name == "vdd") for c in sram.conditions))
    with pytest.raises(MemorySpecError) as caught:
        strict.resolve({})
    assert "sram-28nm-vc707:vdd=" in one_paragraph(caught.value)


# --- technologies of others --------------------------------------------------------------------------------------------------

THEIRS = replace(technology("uniform"), name="theirs", title="Somebody else's")
NOT_A_TECHNOLOGY = 42


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four entry points as another distribution would declare them; one of them takes a name that is taken."""
    targets = {
        "theirs": f"{__name__}:THEIRS",
        "wrong": f"{__name__}:NOT_A_TECHNOLOGY",
        "broken": "no_such_package.memories:MEMORY",
        "uniform": f"{__name__}:THEIRS",
    }
    points = [EntryPoint(name, target, "weakcell.memories") for name, target in targets.items()]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points if group == "weakcell.memories" else [])
    technology.cache_clear()
    catalogue._entry_points.cache_clear()
    yield
    technology.cache_clear()
    catalogue._entry_points.cache_clear()


@pytest.mark.usefixtures("registered")
def test_others_can_register_technologies() -> None:
    assert names()[: len(BUILT_IN)] == BUILT_IN
    assert names()[-3:] == ("theirs", "wrong", "broken")
    assert technology("theirs") is THEIRS
    memory = open_memory("theirs:ber=1", seed=3)
    assert isinstance(memory, SimulatedMemory)
    layout = Layout("w", 100, 1)
    _, report = get(memory, memory.write(contents(layout), layout, Key()))
    assert report.flips == 100


@pytest.mark.usefixtures("registered")
def test_near_misses_know_the_technologies_of_others() -> None:
    with pytest.raises(MemorySpecError, match="Did you mean theirs"):
        parse_spec("theris:ber=1")


@pytest.mark.usefixtures("registered")
def test_nobody_replaces_what_is_built_in() -> None:
    assert technology("uniform").title != THEIRS.title


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("name", "said"), [("wrong", "a int"), ("broken", "no_such_package")])
def test_packages_that_register_nonsense_are_named(name: str, said: str) -> None:
    with pytest.raises(MemorySpecError) as caught:
        technology(name)
    assert said in one_paragraph(caught.value)


def test_technologies_are_records() -> None:
    assert isinstance(technology("uniform"), Technology)
    assert technology("uniform") is technology("uniform")
