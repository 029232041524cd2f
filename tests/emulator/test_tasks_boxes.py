"""Detectors: average precision is compared with COCO's own program, and layouts are read as their authors write them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.emulator.flipped import with_flipped_initializers
from tests.emulator.models import exported, quantized, run
from weakcell.emulator import ReadPolicy, compile_plan, place, prepare_evaluation, run_trial
from weakcell.emulator.importer import load
from weakcell.emulator.ir.values import ValueSpec
from weakcell.emulator.tasks import Asked
from weakcell.emulator.tasks.boxes import BoxTask
from weakcell.emulator.tasks.detection import THRESHOLDS, average_precisions, overlaps, same_detections, suppress
from weakcell.memmodels.address import set_bits
from weakcell.memmodels.catalogue import parse_spec
from weakcell.memmodels.errors import InputError, UsageError

Array = np.ndarray


def some_boxes(rng: np.random.Generator, count: int) -> Array:
    corner, size = rng.integers(0, 24, (count, 2)), rng.integers(1, 12, (count, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float64)


def some_images(rng: np.random.Generator, images: int, classes: int) -> tuple[list[Array], list[Array]]:
    """Labels, and detections that are these moved a little, with others among them; scores repeat now and then."""
    labels, found = [], []
    for _ in range(images):
        count = rng.integers(0, 6)
        boxes, numbers = some_boxes(rng, count), rng.integers(0, classes, count)
        labels.append(np.column_stack([numbers, boxes]))
        moved = boxes + rng.integers(-2, 3, boxes.shape)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        extra = rng.integers(0, 5)
        every = np.concatenate([moved, some_boxes(rng, extra)])
        kinds = np.concatenate([numbers, rng.integers(0, classes, extra)])
        scores = rng.permutation(np.linspace(0.1, 0.9, len(every))) + rng.random(len(every)) * 1e-3
        found.append(np.column_stack([every, scores, kinds]))
    return labels, found


# ── average precision ───────────────────────────────────────────────────────────────────────────────


def coco(labels: list[Array], found: list[Array]) -> tuple[float, float]:
    """mAP at 0.5:0.95 and at 0.5 by pycocotools."""
    pytest.importorskip("pycocotools", reason="COCO's own program is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entries(images: list[Array], columns: Any) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for image, rows in enumerate(images):
            for row in rows:
                (x1, y1, x2, y2), number, rest = columns(row)
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                made.append({"id": len(made) + 1, "image_id": image, "category_id": int(number), **box, **rest})
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        given = entries(labels, lambda r: (r[1:], r[0], {}))
        numbers = sorted({entry["category_id"] for entry in given})
        truth.dataset = {
            "images": [{"id": i} for i in range(len(labels))], "annotations": given, "categories": [{"id": n} for n in numbers],
        }  # fmt: skip
        truth.createIndex()
        detections = truth.loadRes(entries(found, lambda r: (r[:4], r[5], {"score": r[4]})))
        judged = COCOeval(truth, detections, "bbox")
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes; all areas, 100 detections
    return float(precision.mean()), float(precision[0].mean())


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_is_that_of_coco(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, found = some_images(rng, 25, 3)
    numbers = sorted({int(n) for image in labels for n in image[:, 0]})
    made = average_precisions(found, labels, numbers)
    whole, half = coco(labels, found)
    assert made.mean() == pytest.approx(whole, abs=1e-12)
    assert made[:, 0].mean() == pytest.approx(half, abs=1e-12)


def test_average_precision_of_small_cases_worked_out_by_hand() -> None:
    box = np.array([0.0, 0.0, 10.0, 10.0])
    label = [np.array([[0.0, *box]])]

    def judged(*rows: tuple[Array, float]) -> Array:
        return average_precisions([np.array([[*b, score, 0.0] for b, score in rows]).reshape(-1, 6)], label, [0])[0]

    assert judged((box, 0.9)).tolist() == [1.0] * 10
    assert judged().tolist() == [0.0] * 10
    assert judged((box, 0.9), (box, 0.8)).tolist() == [1.0] * 10  # the second comes after full recall
    assert judged((box + 50, 0.9), (box, 0.8)).tolist() == [0.5] * 10
    shifted = box + np.array([0.0, 0.0, 0.0, -3.5])  # 65 of 100 in common
    assert judged((shifted, 0.9)).tolist() == [float(t <= 0.65) for t in THRESHOLDS]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 30))
def test_suppression_is_that_of_two_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores, numbers = some_boxes(rng, 30), rng.integers(0, 9, 30) / 10, rng.integers(0, 2, 30)
    kept: list[int] = []
    for i in sorted(range(30), key=lambda i: -scores[i]):
        if all(numbers[i] != numbers[j] or iou(boxes[i], boxes[j]) <= 0.4 for j in kept):
            kept.append(i)
    assert suppress(boxes, scores, numbers, 0.4).tolist() == kept


def iou(a: Array, b: Array) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = width * height if width > 0 and height > 0 else 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common) if areas > common else 0.0


def test_detections_pair_off_in_any_order() -> None:
    rng = np.random.default_rng(1)
    found = np.column_stack([some_boxes(rng, 7), rng.random(7), rng.integers(0, 3, 7)])
    assert same_detections(found, found[::-1])
    assert not same_detections(found, found[1:])
    other = found.copy()
    other[3, 5] += 1
    assert not same_detections(found, other)
    assert overlaps(found[:, :4], found[:, :4]).diagonal().tolist() == [1.0] * 7


# ── layouts ─────────────────────────────────────────────────────────────────────────────────────────


def task(layout: str, shape: tuple[int, ...], classes: int | None = 2, **more: Any) -> BoxTask:
    corners = "xyxy" if layout in ("end2end", "ssd") else "cxcywh"
    by_column = layout == "yolov8" and shape[-2] < shape[-1]
    return BoxTask("y", ValueSpec("y", "float", shape), layout, by_column, corners, classes, **more)  # type: ignore[arg-type]


WANTED = np.array([[1.0, 2.0, 5.0, 8.0, 0.9, 1.0], [10.0, 10.0, 14.0, 12.0, 0.6, 0.0]])
"""Two detections: corners, score, class."""

CENTRES = np.array([[3.0, 5.0, 4.0, 6.0], [12.0, 11.0, 4.0, 2.0], [50.0, 50.0, 1.0, 1.0]])


TABLE = np.vstack([np.column_stack([CENTRES, [0.0, 0.6, 0.0], [0.9, 0.0, np.nan]]), np.zeros((6, 6))])
"""Nine boxes of YOLOv8 with two classes; all but two have no score."""


@pytest.mark.parametrize(
    ("layout", "table"),
    [
        ("yolov5", np.column_stack([CENTRES, [1.0, 0.75, 0.0], [0.0, 0.8, 1.0], [0.9, 0.0, 1.0]])),
        ("yolov8", TABLE),
        ("yolov8", TABLE.T),
        ("end2end", np.vstack([WANTED[::-1], np.zeros((1, 6))])),
    ],
)
def test_layouts(layout: str, table: Array) -> None:
    (found,) = task(layout, table.shape).answers(table[None].astype(np.float32))
    assert found == pytest.approx(WANTED, abs=1e-6)


def test_ssd_takes_two_outputs_and_leaves_the_background_out() -> None:
    boxes = np.vstack([WANTED[:, :4], [[0.0, 0.0, 1.0, 1.0]]]).astype(np.float32)
    scores = np.array([[0.0, 0.0, 0.9], [0.3, 0.6, 0.0], [1.0, 0.0, 0.0]], np.float32)
    made = task("ssd", (3, 4), scores="s", scores_spec=ValueSpec("s", "float", (3, 3)))
    assert made.outputs == ("y", "s")
    (found,) = made.answers(boxes[None], scores[None])
    assert found == pytest.approx(WANTED, abs=1e-6)


def test_faulty_numbers_are_wrong_boxes_and_no_errors() -> None:
    table = np.full((1, 5, 7), np.nan, np.float32)
    table[0, 0] = [np.inf, 1, 1, 1, 1, 1, 0]
    (found,) = task("yolov5", (5, 7)).answers(table)
    assert found.tolist() == [[0, 0, 0, 0, 1, 0]]
    labels = [np.array([[0.0, 0.0, 0.0, 4.0, 4.0]])]
    assert average_precisions([found], labels, [0]).max() == 0.0


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros((2, 5)), "shape"),
        (np.array([[[2.0, 0, 0, 4, 4]]]), "2 classes"),
        (np.array([[[-2.0, 0, 0, 4, 4], [0, 0, 0, 1, 1]]]), "no box"),
        (np.array([[[0.5, 0, 0, 4, 4]]]), "whole number"),
        (np.array([[[0.0, 4, 0, 0, 4]]]), "ends before"),
        (np.full((1, 3, 5), -1.0), "hold no box"),
    ],
)
def test_labels_that_do_not_fit(labels: Array, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        task("yolov8", (6, 9)).labels(labels, len(labels))


def test_labels_in_other_units_are_refused() -> None:
    made = task("yolov8", (6, 9))
    labels = made.labels(np.array([[[0, 0.1, 0.1, 0.4, 0.4]]]), 1)
    with pytest.raises(InputError, match="units"):
        made.check_clean([WANTED], labels)
    with pytest.raises(UsageError, match="between 0 and 1"):
        made.check_clean([np.array([[0.0, 0, 4, 4, 3.7, 1]])], None)


# ── a network of the real exporter ──────────────────────────────────────────────────────────────────


class Detector(nn.Module):
    """[N, 3, 24, 24] -> [N, 4 + 3, 36], as YOLOv8 writes it: centres and sizes in pixels, probabilities of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 7, 3, 2, 1))
        self.register_buffer(
            "centres", torch.stack(torch.meshgrid([torch.arange(2.0, 24.0, 4)] * 2, indexing="xy")).reshape(1, 2, 36)
        )

    def forward(self, x: Any) -> Any:
        y = self.body(x).reshape(-1, 7, 36)
        boxes, scores = torch.sigmoid(y[:, :4]), torch.sigmoid(4 * y[:, 4:])
        return torch.cat([boxes[:, :2] * 4 - 2 + self.centres, boxes[:, 2:] * 12, scores], 1)


def detector() -> tuple[onnx.ModelProto, Array]:
    torch.manual_seed(4)
    x = np.random.default_rng(5).normal(size=(24, 3, 24, 24)).astype(np.float32)
    return quantized(exported(Detector().eval(), (3, 24, 24), dynamo=False), x, True, per_channel=False), x


def decoded(y: Array) -> list[Array]:
    """Detections of YOLOv8's output by loops: (k, 6)."""
    found = []
    for image in y.astype(np.float64):
        rows = []
        for cx, cy, w, h, *scores in image.T:
            rows += [(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, s, c) for c, s in enumerate(scores) if s >= 0.05]
        rows.sort(key=lambda row: -row[4])
        kept: list[Any] = []
        for row in rows:
            if all(row[5] != other[5] or iou(row[:4], other[:4]) <= 0.7 for other in kept):
                kept.append(row)
        found.append(np.array(kept).reshape(-1, 6))
    return found


def test_a_detector_is_judged_as_an_independent_script_judges_it() -> None:
    proto, x = detector()
    network = load(proto)
    plan = compile_plan(network)
    clean = decoded(run(proto, {"x": x})[0])
    most = max(len(image) for image in clean)
    labels = np.full((len(x), most, 5), -1.0)
    for row, image in zip(labels, clean, strict=True):
        strong = image[image[:, 4] > 0.6]
        row[: len(strong)] = strong[:, [5, 0, 1, 2, 3]]
    asked = Asked("boxes:layout=yolov8,confidence=0.05")
    questions = prepare_evaluation(plan, {"x": x}, labels, asked)
    assert questions.fault_free_judgement.changed == 0.0
    assert questions.fault_free_judgement.metrics["mean_ap"] > 0.9
    placement = place(network, parse_spec("uniform:ber=0.03"))
    for trial in range(3):
        found = run_trial(plan, placement, questions, ReadPolicy.LOAD, trial=trial, record=True)
        planes = {fault.slot.tensor: fault.slot.planes for fault in found.faults}
        cells = {fault.slot.tensor: set_bits(fault.flips).tolist() for fault in found.faults}
        flips = {name: [(c // len(planes[name]), planes[name][c % len(planes[name])]) for c in own] for name, own in cells.items()}
        faulty = decoded(run(with_flipped_initializers(proto, flips), {"x": x})[0])
        given = [image[image[:, 0] >= 0] for image in labels]
        whole, half = coco(given, faulty)
        assert found.metrics["mean_ap"] == pytest.approx(whole, abs=2e-3)
        assert found.metrics["mean_ap_50"] == pytest.approx(half, abs=2e-3)
        assert 0.0 < found.changed <= 1.0
        assert found.metrics["mean_ap"] < questions.fault_free_judgement.metrics["mean_ap"]


def test_a_detector_without_a_layout_is_asked_for_one() -> None:
    proto, x = detector()
    plan = compile_plan(load(proto))
    labels = np.full((len(x), 2, 5), -1.0)
    labels[0, 0] = [0, 1, 1, 5, 5]
    with pytest.raises((InputError, UsageError), match="layout"):
        prepare_evaluation(plan, {"x": x}, labels)
    with pytest.raises((InputError, UsageError), match="numbers"):
        prepare_evaluation(plan, {"x": x}, labels, Asked("boxes:layout=end2end"))
