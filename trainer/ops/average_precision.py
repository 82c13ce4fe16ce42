"""Average precision of detections, as COCO has it: 101 points of recall, IoU from .50 to .95."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from trainer.ops.boxes import iou
from trainer.ops.detections import Detection

COCO = tuple((50 + 5 * i) / 100 for i in range(10))
POINTS = tuple(i / 100 for i in range(101))
Image = tuple[Sequence[Detection], Sequence[Detection]]
"""(predicted, gold) of one image."""


def mean_ap(
    images: Sequence[Image], thresholds: Sequence[float] = COCO, *, most: int = 100
) -> float | None:
    """Mean over the classes of the gold boxes, then over `thresholds`; None without any gold box.

    Predictions of a class that has no gold box do not count. Within an image the first `most` of
    a class count, by score. Predictions are ranked by score over all images, equal ones (or
    without score: 1) in the order given. Source: the COCO evaluation, arXiv:1405.0312.
    """
    classes = sorted({item.label for _, gold in images for item in gold})
    if not classes:
        return None
    values = [_class_ap(images, label, t, most) for label in classes for t in thresholds]
    return sum(values) / len(values)


def _class_ap(images: Sequence[Image], label: str, threshold: float, most: int) -> float:
    ranked: list[tuple[float, int, bool]] = []
    total = 0
    for predicted, gold in images:
        right = [item for item in gold if item.label == label]
        total += len(right)
        given = sorted((p for p in predicted if p.label == label), key=lambda p: -_score(p))[:most]
        for item, hit in zip(given, _hits(given, right, threshold), strict=True):
            ranked.append((-_score(item), len(ranked), hit))
    hits = [hit for _, _, hit in sorted(ranked)]
    return interpolated(hits, total)


def _hits(given: Sequence[Detection], right: Sequence[Detection], threshold: float) -> list[bool]:
    """Each prediction in order takes the free gold box it covers best; of equal ones the last."""
    free = list(range(len(right)))
    hits = []
    for item in given:
        found, best = None, min(threshold, 1 - 1e-10)
        for i in free if item.box else ():
            box = right[i].box
            overlap = iou(item.box, box) if item.box and box else 0.0
            if overlap >= best:
                found, best = i, overlap
        if found is not None:
            free.remove(found)
        hits.append(found is not None)
    return hits


def interpolated(hits: Sequence[bool], total: int) -> float:
    """Mean over `POINTS` of the best precision at that recall or more; 0 where it is not reached.
    `hits` in order of rank; `total` gold boxes, at least 1."""
    found = list(accumulate(int(hit) for hit in hits))
    precision = [count / (rank + 1) for rank, count in enumerate(found)]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    recall = [count / total for count in found]
    places = (bisect_left(recall, point) for point in POINTS)
    return sum(precision[i] for i in places if i < len(precision)) / len(POINTS)


def _score(item: Detection) -> float:
    return 1.0 if item.score is None else item.score
