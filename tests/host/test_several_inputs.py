"""Networks with several inputs and with open sizes, from data files to results; right answers are onnxruntime's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import weakcell
from tests.emulator.models import Array, model, node, run
from tests.emulator.test_batch_axis import Graph
from weakcell.host.cli import app
from weakcell.memmodels.errors import InputError

F = np.float32


def two_inputs() -> onnx.ModelProto:
    """Return classes from two sequences of an open length, and a number that all images share."""
    g = Graph()
    both = g.op("Add", g.dense("left", 6, 5), g.dense("right", 4, 5))
    g.nodes.append(node("ReduceSum", " ".join((g.op("Mul", both, "gain"), g.const([1]))), "scores", keepdims=0))
    inputs = {"left": ["N", "length", 6], "right": ["N", "length", 4], "gain": []}
    return model(g.nodes, g.constants, inputs, {"scores": ["N", 5]})


def arrays(images: int = 12, length: int = 3) -> dict[str, Array]:
    """Return data for it."""
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(images, length, width)).astype(F) for width in (6, 4))
    return {"left": left, "right": right, "gain": np.array(0.5, F)}


@pytest.mark.parametrize("length", [3, 7])
def test_emulate_and_infer(tmp_path: Path, length: int) -> None:
    proto, x = two_inputs(), arrays(length=length)
    want = run(proto, x)[0]
    np.testing.assert_allclose(weakcell.infer(proto, x)["scores"], want, rtol=1e-5, atol=1e-5)
    np.savez(tmp_path / "data.npz", **x, y=want.argmax(1), unused=np.zeros(2))
    safe = weakcell.emulate(proto, tmp_path / "data.npz", memory="uniform:ber=0", trials=1)
    assert safe.frame["accuracy"].to_list() == [1.0]
    named = {**x, "y": want.argmax(1)}
    torn = weakcell.emulate(proto, named, memory="uniform:ber=0.3", trials=3, images=7)
    assert torn.frame["images"].to_list() == [7, 7, 7]
    assert torn.frame["accuracy"].mean() < 0.9  # type: ignore[operator]
    assert torn.frame["flips"].sum() > 100


def test_a_campaign_of_several_inputs(tmp_path: Path) -> None:
    proto, x = two_inputs(), arrays()
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", **x, y=run(proto, x)[0].argmax(1))
    (tmp_path / "c.toml").write_text(
        f'trials = 1\n[[network]]\nmodel = "{tmp_path}/net.onnx"\ndata = "{tmp_path}/data.npz"\n'
        '[[memory]]\nspec = "uniform"\ngrid = { ber = [0.0, 0.2] }\n'
    )
    done = CliRunner().invoke(app, ["sweep", str(tmp_path / "c.toml"), "--out", str(tmp_path / "got")])
    assert done.exit_code == 0, done.output
    assert weakcell.read_results(tmp_path / "got").frame["accuracy"].max() == 1.0


def test_margins_validation_and_prediction_of_several_inputs() -> None:
    """Margins of onnxruntime's scores; no bound is violated by real flips; the predicted accuracy is that of trials."""
    g = Graph()
    both = g.op("Concat", g.qdq("a"), g.qdq("b"), axis=1)
    g.nodes.append(node("MatMul", f"{g.qdq(both)} {g.weight(10, 5)}", "y"))
    proto = model(g.nodes, g.constants, {"a": ["N", 6], "b": ["N", 4]}, {"y": ["N", 5]})
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(60, width)).astype(F) for name, width in (("a", 6), ("b", 4))}
    scores = run(proto, x)[0]
    data, memory = {**x, "y": scores.argmax(1)}, "uniform:ber=0.02,lifetime=read"
    ordered = np.sort(scores, axis=1)
    np.testing.assert_allclose(weakcell.margins(proto, data).frame["margin"], ordered[:, -1] - ordered[:, -2], rtol=1e-5, atol=1e-5)
    assert weakcell.validate(proto, data, memory=memory, trials=2).violation_count == 0
    trials = weakcell.emulate(proto, data, memory=memory, read_every="image", trials=12).summary
    predicted = weakcell.predict(proto, data, memory=memory).frame["accuracy"][0]
    assert trials["low"][0] < predicted < trials["high"][0] < 0.9
    (part,) = weakcell.rank(proto, data, memory=memory).parts
    assert part.loss == pytest.approx(1 - predicted, abs=part.error)


def test_ids_and_a_mask() -> None:
    """Ids choose rows of a stored table, and are no values of its codes. GatherND picks the last token, as in text encoders."""
    g = Graph()
    codes = g.const(g.rng.integers(-100, 100, (20, 6)), np.int8)
    rows = g.op("Gather", g.op("DequantizeLinear", codes, g.const(2.0**-7, F), g.const(0, np.int8)), "ids")
    shown = g.op("Cast", g.op("Unsqueeze", "mask", g.const([2])), to=1)
    scores = g.dense(g.op("Mul", rows, shown), 6, 4)
    count = g.op("Squeeze", g.op("Gather", g.op("Shape", "ids"), g.const([0]), axis=0), g.const([0]))
    images = g.op("Unsqueeze", g.op("Range", g.const(0), count, g.const(1)), g.const([1]))
    last = g.op("ArgMax", "ids", axis=1, keepdims=1)
    g.nodes.append(node("GatherND", f"{scores} {g.op('Concat', images, last, axis=1)}", "scores"))
    sizes = {"ids": ["batch", "sequence"], "mask": ["batch", "sequence"]}
    proto = model(g.nodes, g.constants, sizes, {"scores": ["batch", 4]}, types={"ids": 7, "mask": 7})
    rng = np.random.default_rng(1)
    x = {"ids": rng.integers(0, 20, (5, 8)), "mask": rng.integers(0, 2, (5, 8))}
    np.testing.assert_allclose(weakcell.infer(proto, x)["scores"], run(proto, x)[0], rtol=1e-5, atol=1e-5)
    assert weakcell.inspect(proto).layers.weight_bits == (20 * 6 + 6 * 4) * 8


def test_data_that_lack_an_input() -> None:
    x = arrays()
    with pytest.raises(InputError, match="left, right, gain"):
        weakcell.emulate(two_inputs(), {"left": x["left"]}, memory="uniform:ber=0", trials=1)
    with pytest.raises(InputError, match="length"):
        weakcell.infer(two_inputs(), {**x, "right": x["right"][:, :2]})


def test_sizes_on_the_command_line(tmp_path: Path) -> None:
    onnx.save(two_inputs(), tmp_path / "net.onnx")
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "net.onnx"), "--shape", "length=9", "--json"])
    about = json.loads(shown.stdout)
    assert (about["sizes"], about["assumed_sizes"], about["weight_bits"]) == ({"length": 9}, [], (6 + 4) * 5 * 8)
    for wrong in ("length", "length=0", "length=x", "other=3"):
        assert CliRunner().invoke(app, ["inspect", str(tmp_path / "net.onnx"), "--shape", wrong]).exit_code in (2, 3)
