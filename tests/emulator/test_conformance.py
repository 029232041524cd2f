"""ONNX's own node tests through the plug-in: the table by group, and a list of passing tests that only grows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

from tests.emulator.conformance.table import Result, passing, results, scope, table
from tests.emulator.models import model, node
from weakcell.emulator.onnx_backend import Backend
from weakcell.emulator.onnx_ops import OPERATORS
from weakcell.memmodels.errors import InputError, ModelError

LEAST = 900

WITHOUT_NODE_TEST = {"Einsum", "GlobalLpPool"}
"""Operators that no node test in scope has; other tests compare them with onnxruntime."""


@pytest.fixture(scope="module")
def found() -> list[Result]:
    return results()


def test_scope() -> None:
    names = [name for group in scope().values() for name in group]
    assert len(names) == len(set(names)) >= 534 + 40  # those of resizing came later


def test_every_operator_has_a_node_test(found: list[Result]) -> None:
    """A new operator of ONNX's own domain needs its official tests in scope.json."""
    tested = {name for result in found for name in result.operators}
    assert {name for name in OPERATORS if "." not in name} - tested == WITHOUT_NODE_TEST


def test_what_passed_still_passes(found: list[Result], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{table(found)}")
    passed = {r.name for r in found if r.outcome == "passed"}
    why = {r.name: r.why for r in found}
    lost = {name: why.get(name, "it is not in scope any more") for name in passing() if name not in passed}
    assert not lost
    new = sorted(passed - set(passing()))
    assert not new, "run python -m tests.emulator.conformance.table --grow"
    assert len(passed) >= LEAST
    assert all(r.outcome == "passed" for r in found if r.group == "quant core")


def test_one_node() -> None:
    x, y = np.array([[1, -2]], np.int64), np.array([3, 4], np.int64)
    (made,) = Backend.run_node(onnx.helper.make_node("Add", ["x", "y"], ["z"]), [x, y])
    assert made.dtype == np.int64
    np.testing.assert_array_equal(made, [[4, 2]])


def test_what_is_not_supported_says_so() -> None:
    determinant = onnx.helper.make_node("Det", ["x"], ["y"])
    with pytest.raises(BackendIsNotSupposedToImplementIt, match="Det, opset"):
        Backend.run_node(determinant, [np.zeros((2, 2), np.float32)])
    assert Backend.supports_device("CPU")
    assert not Backend.supports_device("CUDA:0")


def test_inputs_that_do_not_fit() -> None:
    rep = Backend.prepare(
        model([node("MatMul", "x w", "y")], {"w": np.zeros((3, 2), np.float32)}, {"x": ["N", 4]}, {"y": ["N", 2]})
    )
    with pytest.raises(ModelError, match=r"MatMul, opset 17"):
        rep.run([np.zeros((1, 4), np.float32)])
    with pytest.raises(InputError, match="2 arrays"):
        rep.run([np.zeros((1, 4), np.float32)] * 2)
