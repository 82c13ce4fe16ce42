"""Points (x, y) in a reply."""

from __future__ import annotations

import math
import re

from trainer.ops.boxes import Box, parse_boxes

Point = tuple[float, float]

_NUMBER = r"[-+]?(?:[0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"
_PAIR = re.compile(rf"[\[(<]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])>]")
_NAMED = re.compile(rf"[\"']?x[\"']?\s*[:=]\s*({_NUMBER})\s*,\s*[\"']?y[\"']?\s*[:=]\s*({_NUMBER})")
_BARE = re.compile(rf"\s*({_NUMBER})(?:\s*,\s*|\s+)({_NUMBER})\s*")


def parse_points(text: str) -> list[Point]:
    """Every `(x, y)`, `[x, y]`, `x=1, y=2` of the text in order; of a text that is two bare
    numbers these; of boxes the centres, where the text has no pairs but boxes."""
    found = [
        (match.start(), (float(match.group(1)), float(match.group(2))))
        for pattern in (_PAIR, _NAMED)
        for match in pattern.finditer(text)
    ]
    if found and not _corners(text, len(found)):
        return [point for _, point in sorted(found)]
    if boxes := parse_boxes(text):
        return [centre(box) for box in boxes]
    bare = _BARE.fullmatch(text)
    return [(float(bare.group(1)), float(bare.group(2)))] if bare else []


def _corners(text: str, pairs: int) -> bool:
    """Whether the pairs are the corners of boxes: `(1,2),(3,4)` in box tokens."""
    return "box" in text and pairs == 2 * len(parse_boxes(text))


def centre(box: Box) -> Point:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def hits(point: Point, box: Box) -> bool:
    """Whether the closed box holds the point."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def distance(a: Point, b: Point) -> float:
    return math.hypot(a[0] - b[0], a[1] - b[1])
