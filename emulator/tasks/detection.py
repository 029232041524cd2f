"""Object detection: overlap of boxes, suppression of the weaker of two boxes, and average precision.

Boxes are (x1, y1, x2, y2), corners in the units of the labels. Average precision is COCO's (T.-Y. Lin et al., Microsoft COCO, ECCV
2014; the reference is pycocotools). Detections of a class are taken by falling score over all images. Each takes the free box of
its image that it overlaps most, if the overlap reaches the threshold. Precision is made monotone and averaged over 101 recalls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps at which COCO's average precision is averaged."""

_RECALLS = np.linspace(0.0, 1.0, 101)


def overlaps(a: Floats, b: Floats) -> Floats:
    """Return intersection over union of every box in `a` (n, 4) with every box in `b` (m, 4), as (n, m)."""
    top = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(bottom - top, 0.0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None), axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - common
    found: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return found


def suppress(boxes: Floats, scores: Floats, classes: npt.NDArray[np.int64], limit: float) -> npt.NDArray[np.int64]:
    """Return which detections stay when the weaker of two of one class that overlap too much is dropped.

    Args:
        boxes: (n, 4) corners.
        scores: (n,) by which they are taken, highest first; equal scores in the order given.
        classes: (n,) class numbers.
        limit: the largest overlap of two detections of one class.

    Returns:
        Indices into the detections, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes[order], classes[order]
    open_ = np.ones(len(order), np.bool_)
    kept = []
    for i in range(len(order)):
        if not open_[i]:
            continue
        kept.append(i)
        later = np.flatnonzero(open_[i + 1 :] & (classes[i + 1 :] == classes[i])) + i + 1
        if later.size:
            open_[later[overlaps(boxes[i : i + 1], boxes[later])[0] > limit]] = False
    return order[np.array(kept, np.int64)]


def average_precisions(found: Sequence[Floats], labels: Sequence[Floats], classes: Sequence[int]) -> Floats:
    """Return the average precision of each class at each of `THRESHOLDS`, as (classes, thresholds).

    Args:
        found: detections of each image, (n, 6): x1, y1, x2, y2, score, class.
        labels: boxes of each image, (m, 5): class, x1, y1, x2, y2.
        classes: the classes to judge; each is labelled at least once.
    """
    return np.stack([_of_class(found, labels, number) for number in classes])


def _of_class(found: Sequence[Floats], labels: Sequence[Floats], number: int) -> Floats:
    scores, hits, total = [], [], 0
    for detections, given in zip(found, labels, strict=True):
        mine = detections[detections[:, 5] == number]
        mine = mine[np.argsort(-mine[:, 4], kind="stable")]
        boxes = given[given[:, 0] == number, 1:]
        total += len(boxes)
        scores.append(mine[:, 4])
        hits.append(_matched(overlaps(mine[:, :4], boxes)))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.concatenate(hits)[order].cumsum(axis=0)
    recall = right / total
    precision = right / np.arange(1, len(order) + 1)[:, None]
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    padded = np.vstack([best, np.zeros((1, len(THRESHOLDS)))])
    curves = [padded[np.searchsorted(recall[:, t], _RECALLS, side="left"), t].mean() for t in range(len(THRESHOLDS))]
    return np.array(curves)


def _matched(overlap: Floats) -> npt.NDArray[np.bool_]:
    """Return whether each detection (by falling score) takes a free box, at each of `THRESHOLDS`: (detections, thresholds)."""
    taken = np.zeros((len(overlap), len(THRESHOLDS)), np.bool_)
    if not overlap.shape[1]:
        return taken
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(overlap.shape[1], np.bool_)
        for i, row in enumerate(overlap):
            left = np.where(free, row, -1.0)
            best = len(left) - 1 - int(np.argmax(left[::-1]))  # the last of equal ones, as the reference takes
            if left[best] >= threshold:
                free[best], taken[i, t] = False, True
    return taken


def same_detections(a: Floats, b: Floats, overlap: float = 0.5) -> bool:
    """Return whether two sets of detections of one image pair off, each pair of one class and with enough overlap."""
    if len(a) != len(b):
        return False
    if not len(a):
        return True
    from scipy.optimize import linear_sum_assignment

    fits = (overlaps(a[:, :4], b[:, :4]) >= overlap) & (a[:, None, 5] == b[None, :, 5])
    rows, columns = linear_sum_assignment(~fits)
    return bool(fits[rows, columns].all())
