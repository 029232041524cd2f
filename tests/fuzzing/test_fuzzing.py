"""A small share of every fuzzer, and every kept input.

The oracle is the rule of the engine: a reader returns or raises an error of the project, within `SECONDS` of CPU time and `BYTES`
of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fuzzing import engine
from tests.fuzzing.readers import MODULES, get_reader

_KEPT = [(name, path) for name in MODULES for path in sorted((engine.CORPUS / name).glob("*"))]


@pytest.fixture(scope="module", autouse=True)
def _limits() -> Iterator[None]:
    with engine.watch():
        yield


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore")
def test_a_share_of_every_fuzzer(name: str, tmp_path: Path) -> None:
    reader, kinds = get_reader(name), set()
    for index in range(reader.tests):
        data = engine.draw(reader, Random(f"{name} test {index}"), [])
        outcome = engine.attempt(reader, data, tmp_path)
        assert outcome.kind != "finding", f"{outcome.signature} at {data[:200]!r}\n{outcome.text}"
        kinds.add(outcome.kind)
    assert kinds & {"accepted", "refused"}, "every input was refused by the first check"


@pytest.mark.parametrize(("name", "path"), _KEPT, ids=[f"{name}-{path.stem}" for name, path in _KEPT])
@pytest.mark.filterwarnings("ignore")
def test_the_corpus(name: str, path: Path, tmp_path: Path) -> None:
    outcome = engine.attempt(get_reader(name), path.read_bytes(), tmp_path)
    assert outcome.kind != "finding", f"{outcome.signature}\n{outcome.text}"


def test_the_networks_that_are_damaged_are_valid(tmp_path: Path) -> None:
    """The seeds pass ONNX's own checker, and the importer runs them."""
    import onnx

    from tests.fuzzing.readers.networks import SEEDS, seed_bytes

    for name, make in SEEDS.items():
        onnx.checker.check_model(make())
        assert engine.attempt(get_reader("onnx"), seed_bytes(name), tmp_path).kind == "accepted"


def test_the_engine_finds_what_breaks_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exceptions, loops and memory are findings, and the smallest input of a kind is kept."""

    def read(data: bytes, folder: Path) -> None:
        if b"loop" in data:
            while True:
                pass
        if b"memory" in data:
            bytearray(b"\1" * (3 * engine.BYTES))
        if b"x" in data:
            raise KeyError(data)

    monkeypatch.setattr(engine, "SECONDS", 60.0)
    monkeypatch.setattr(engine, "BYTES", engine._peak() // 2)
    reader = engine.Reader("none", Random.randbytes, read, "")  # type: ignore[arg-type]
    assert engine.attempt(reader, b"abc", tmp_path).kind == "accepted"
    found = engine.attempt(reader, b"abcxdef", tmp_path)
    assert (found.kind, found.signature.split("-")[0]) == ("finding", "keyerror")
    assert engine.minimize(reader, b"abcxdef" * 9, found.signature, tmp_path) == b"x"
    assert engine.attempt(reader, b"memory", tmp_path).signature == "memory"
    monkeypatch.setattr(engine, "SECONDS", 1.0)
    assert engine.attempt(reader, b"loop", tmp_path).signature == "slow"
