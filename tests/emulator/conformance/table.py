"""The official ONNX node tests in scope (`scope.json`), grouped, and which of them pass (`passing.json`, which only grows).

python -m tests.emulator.conformance.table            # the table, and what fails and why
python -m tests.emulator.conformance.table --grow     # the same, and adds what passes to passing.json
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import numpy_helper
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt, Runner

from weakcell.emulator.onnx_backend import Backend

HERE = Path(__file__).parent
Outcome = Literal["passed", "failed", "unsupported"]


@dataclass(frozen=True)
class Result:
    """One node test: its outcome, why it did not pass, and the operators that its model has."""

    group: str
    name: str
    outcome: Outcome
    why: str = ""
    operators: frozenset[str] = frozenset()


def scope() -> dict[str, list[str]]:
    """The names of the tests, by group."""
    known: dict[str, list[str]] = json.loads((HERE / "scope.json").read_text())
    return known


def passing() -> list[str]:
    """The tests that have passed before."""
    known: list[str] = json.loads((HERE / "passing.json").read_text())
    return known


def results() -> list[Result]:
    """Run every test in scope through the plug-in."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = {case.name: case for case in load_model_tests(kind="node")}
    return [_result(group, name, cases.get(name)) for group, names in scope().items() for name in names]


def _array(x: Any) -> Any:
    return numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x


def _result(group: str, name: str, case: Any) -> Result:
    operators = frozenset(node.op_type for node in case.model.graph.node)
    try:
        rep = Backend.prepare(case.model)
        for inputs, expected in case.data_sets:
            Runner.assert_similar_outputs([_array(x) for x in expected], rep.run(inputs), case.rtol, case.atol)
    except BackendIsNotSupposedToImplementIt as e:
        return Result(group, name, "unsupported", str(e), operators)
    except Exception as e:
        return Result(group, name, "failed", f"{type(e).__name__}: {' '.join(str(e).split())[:200]}", operators)
    return Result(group, name, "passed", "", operators)


def table(found: list[Result]) -> str:
    """Passed, failed and unsupported, by group."""
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "unsupported")
    lines = [f"{'ONNX node tests':<16}{''.join(f'{o:>13}' for o in outcomes)}{'all':>7}"]
    for group in [*scope(), "all"]:
        own = [r for r in found if group in (r.group, "all")]
        counts = "".join(f"{sum(r.outcome == o for r in own):>13}" for o in outcomes)
        lines.append(f"{group:<16}{counts}{len(own):>7}")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    found = results()
    print(table(found))
    for result in found:
        if result.outcome != "passed":
            print(f"{result.outcome}: {result.name}: {result.why}")
    if "--grow" in arguments:
        known = set(passing()) if (HERE / "passing.json").exists() else set()
        known |= {r.name for r in found if r.outcome == "passed"}
        (HERE / "passing.json").write_text(json.dumps(sorted(known), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
