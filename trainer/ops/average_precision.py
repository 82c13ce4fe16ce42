"""Average precision of detections, as COCO has it: 101 points of recall, IoU from .50 to .95."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cache

from trainer.ops.boxes import iou
from trainer.ops.detections import Detection

COCO = tuple((50 + 5 * i) / 100 for i in range(10))
POINTS = tuple(i / 100 for i in range(101))
Image = tuple[Sequence[Detection], Sequence[Detection]]
"""(predicted, gold) of one image."""


def mean_ap(
    images: Sequence[Image], thresholds: Sequence[float] = COCO, *, most: int = 100
) -> float | None:
    """mAP of all images; see `Precision`."""
    return Precision(images, thresholds, most=most).over(range(len(images)))


class Precision:
    """Mean over the classes of the gold boxes, then over `thresholds`; None without any gold box.

    Predictions of a class that has no gold box do not count. Within an image the first `most` of
    a class count, by score. Predictions are ranked by score over all images, equal ones (or
    without score: 1) in the order given. Source: the COCO evaluation, arXiv:1405.0312.
    """

    def __init__(
        self, images: Sequence[Image], thresholds: Sequence[float] = COCO, *, most: int = 100
    ):
        self._count = len(thresholds)
        self._images = [_matched(image, thresholds, most) for image in images]

    def over(self, places: Sequence[int]) -> float | None:
        """Of the images at these places, some perhaps several times."""
        images = [self._images[place] for place in places]
        classes = sorted({label for image in images for label, found in image.items() if found[0]})
        if not classes:
            return None
        return sum(self._of(label, images) for label in classes) / len(classes)

    def _of(self, label: str, images: Sequence[_Matched]) -> float:
        found = [image[label] for image in images if label in image]
        total = sum(gold for gold, _ in found)
        ranked = sorted((item for _, items in found for item in items), key=lambda item: -item[0])
        hits = zip(*(item[1] for item in ranked), strict=True) if ranked else [()] * self._count
        return sum(interpolated(column, total) for column in hits) / self._count


_Matched = dict[str, tuple[int, list[tuple[float, tuple[bool, ...]]]]]
"""By class: gold boxes, and of each prediction its score and whether it hits, by threshold."""


def _matched(image: Image, thresholds: Sequence[float], most: int) -> _Matched:
    predicted, gold = image
    found: _Matched = {}
    for label in {item.label for side in image for item in side}:
        right = [item for item in gold if item.label == label]
        given = sorted((p for p in predicted if p.label == label), key=lambda p: -_score(p))[:most]
        hits = zip(*(_hits(given, right, threshold) for threshold in thresholds), strict=True)
        scores = map(_score, given)
        found[label] = len(right), list(zip(scores, hits, strict=True))
    return found


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
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    best, value, widths = 0.0, 0.0, _widths(total)
    for count in range(len(ranks), 0, -1):
        best = max(best, count / ranks[count - 1])
        value += widths[count - 1] * best
    return value / len(POINTS)


@cache
def _widths(total: int) -> list[int]:
    """How many of `POINTS` are first reached with the 1st, 2nd, ... hit of `total`."""
    recall = [count / total for count in range(1, total + 1)]
    reached = Counter(bisect_left(recall, point) for point in POINTS)
    return [reached[place] for place in range(total)]


def _score(item: Detection) -> float:
    return 1.0 if item.score is None else item.score
