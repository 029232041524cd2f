"""Networks of real exporters, one per task, judged as an independent script judges them.

The script in this file shares nothing with the product but the list of flipped bits: it flips them in the file's initializers, lets
onnxruntime run the file as it is written, and works the metrics out in plain numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tests.emulator.models import exported, quantized, run
from weakcell.emulator import ReadPolicy, compile_plan, place, prepare_evaluation, run_trial
from weakcell.emulator.importer import load
from weakcell.emulator.tasks import Asked
from weakcell.memmodels.address import set_bits
from weakcell.memmodels.catalogue import parse_spec

Array = np.ndarray
IMAGES = 60


# ── the independent script ──────────────────────────────────────────────────────────────────────────


def flipped(proto: onnx.ModelProto, faults: Any, network: Any) -> onnx.ModelProto:
    """The file with these bits of its initializers inverted. Weights of a MatMul lie as [inputs, outputs] in the file."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    transposed = {n.input[1].removesuffix("_DequantizeLinear_Output") for n in made.graph.node if n.op_type == "MatMul"}
    for fault in faults:
        tensor = next(t for t in made.graph.initializer if t.name == fault.slot.tensor)
        values = numpy_helper.to_array(tensor).copy()
        turned = values.ndim == 2 and any(tensor.name.startswith(name.removesuffix("_quantized")) for name in transposed)
        rows = np.ascontiguousarray(values.T if turned else values).view(np.uint8).reshape(-1)
        cells, planes = set_bits(fault.flips), np.array(fault.slot.planes)
        np.bitwise_xor.at(rows, cells // len(planes), (1 << planes[cells % len(planes)]).astype(np.uint8))
        shape = values.T.shape if turned else values.shape
        changed = rows.view(values.dtype).reshape(shape)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed.T if turned else changed), tensor.name))
    return made


def mean_iou(said: Array, meant: Array, classes: int) -> float:
    found = []
    for c in range(classes):
        either = ((said == c) | (meant == c)).sum()
        if either:
            found.append(((said == c) & (meant == c)).sum() / either)
    return float(np.mean(found))


# ── five networks ───────────────────────────────────────────────────────────────────────────────────


class Tokens(nn.Module):
    """[N, 6, 12] -> [N, 12, 5]: a class for each of 12 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Conv1d(6, 16, 3, padding=1), nn.Conv1d(16, 5, 1)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.mix(x))).permute(0, 2, 1)


def of_rows(*end: nn.Module, outputs: int = 1) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, outputs), *end)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "one logit": (lambda: of_rows(), (16,)),
    "one probability": (lambda: of_rows(nn.Sigmoid()), (16,)),
    "segmentation": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)), (3, 8, 8)),
    "regression": (lambda: of_rows(outputs=2), (16,)),
    "token classes": (Tokens, (6, 12)),
}


def network_of(kind: str, operators: bool = False) -> tuple[onnx.ModelProto, Array]:
    """The quantized file, and inputs whose outputs straddle zero."""
    torch.manual_seed(7)
    make, shape = NETWORKS[kind]
    x = np.random.default_rng(3).normal(size=(IMAGES, *shape)).astype(np.float32)
    net = make().eval()
    with torch.no_grad():
        bias = [m for m in net.modules() if hasattr(m, "bias")][-1].bias
        made = net[:-1](torch.from_numpy(x)) if kind == "one probability" else net(torch.from_numpy(x))  # type: ignore[index]
        if made.ndim == 2:
            bias -= made.median(0).values
    return quantized(exported(net, shape, dynamo=False), x, operators, per_channel=False), x


def by_hand(kind: str, y: Array, clean: Array, labels: Array) -> dict[str, float]:
    """The metrics of one faulty pass: y and clean are onnxruntime's outputs."""
    if kind == "regression":
        errors = y.astype(np.float64) - labels
        changed = {"mae": np.abs(errors).mean(), "mse": (errors**2).mean()}
        spread = clean.astype(np.float64).std()
        return {**changed, "mean_change": np.abs(y.astype(np.float64) - clean).mean() / spread, "changed": (y != clean).mean()}
    if kind in ("one logit", "one probability"):
        level = 0.5 if kind == "one probability" else 0.0
        said, before = y.ravel() > level, clean.ravel() > level
    else:
        axis = 1 if kind == "segmentation" else 2
        said, before = y.argmax(axis), clean.argmax(axis)
    found = {"accuracy": (said == labels).mean(), "changed": (said != before).mean()}
    return found | ({"mean_iou": mean_iou(said, labels, 4)} if kind == "segmentation" else {})


def labels_for(kind: str, clean: Array) -> Array:
    """Labels that the clean network answers rightly, but for one in seven."""
    rng = np.random.default_rng(11)
    if kind == "regression":
        return clean.astype(np.float64) + rng.normal(size=clean.shape) * 0.2
    if kind in ("one logit", "one probability"):
        right = (clean.ravel() > (0.5 if kind == "one probability" else 0.0)).astype(np.int64)
        classes = 2
    else:
        axis = 1 if kind == "segmentation" else 2
        right, classes = clean.argmax(axis), clean.shape[axis]
    wrong = rng.random(right.shape) < 1 / 7
    return np.where(wrong, (right + 1) % classes, right)


@pytest.mark.parametrize("operators", [False, True], ids=["QDQ", "QOperator"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_are_judged_as_an_independent_script_judges_them(kind: str, operators: bool) -> None:
    proto, x = network_of(kind, operators)
    network = load(proto)
    plan = compile_plan(network)
    clean = run(proto, {"x": x})[0]
    labels = labels_for(kind, clean)
    questions = prepare_evaluation(plan, {"x": x}, labels)
    expected = {"segmentation": "pixels", "regression": "values", "token classes": "tokens"}.get(kind, "logit")
    assert questions.task.name == expected
    assert questions.task.text == ("logit:threshold=0.5" if kind == "one probability" else expected)
    assert by_hand(kind, clean, clean, labels)["changed"] == 0.0
    weights = {t.name for t in network.weights}
    seen = []
    for trial in range(3):
        placement = place(network, parse_spec("uniform:ber=0.02"))
        result = run_trial(plan, placement, questions, ReadPolicy.LOAD, trial=trial, record=True)
        assert {fault.slot.tensor for fault in result.faults} <= weights
        y = run(flipped(proto, result.faults, network), {"x": x})[0]
        wanted = by_hand(kind, y, clean, labels)
        made = {"accuracy": result.accuracy, "changed": result.changed, **result.metrics}
        assert {name: made[name] for name in wanted} == pytest.approx(wanted, rel=1e-5, abs=1e-9)
        seen.append(wanted["changed"])
    assert max(seen) > 0.02  # flips that change nothing would prove nothing


@pytest.mark.parametrize("kind", ["one logit", "segmentation", "token classes"])
def test_without_labels_changes_are_judged(kind: str) -> None:
    proto, x = network_of(kind)
    network = load(proto)
    plan = compile_plan(network)
    name = {"one logit": "logit", "segmentation": "pixels", "token classes": "tokens"}[kind]
    questions = prepare_evaluation(plan, {"x": x}, None, Asked(name))
    result = run_trial(plan, place(network, parse_spec("uniform:ber=0.02")), questions, ReadPolicy.LOAD, record=True)
    clean, y = run(proto, {"x": x})[0], run(flipped(proto, result.faults, network), {"x": x})[0]
    assert result.accuracy is None
    assert result.changed == pytest.approx(by_hand(kind, y, clean, np.zeros(1))["changed"])
