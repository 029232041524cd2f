"""The Python examples of memmodels/README.md run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "memmodels" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], f"example {number} of {README.name}", "exec"), {"__name__": "example"})


def test_there_is_an_example_of_a_technology_and_of_a_memory() -> None:
    assert any("Technology(" in example for example in EXAMPLES)
    assert any("def read(self" in example for example in EXAMPLES)
