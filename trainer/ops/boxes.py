"""Axis-aligned boxes (x1, y1, x2, y2), continuous and half-open: area (x2 - x1)(y2 - y1), never
the +1 pixel of old code. GIoU: arXiv:1902.09630, DIoU: arXiv:1911.08287. Plain Python, no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

Box = tuple[float, float, float, float]

_NUMBER = r"[-+]?(?:[0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"
_N = rf"\s*({_NUMBER})\s*"
_LIST = re.compile(rf"[\[(]{_N},{_N},{_N},{_N}[\])]")
_CORNERS = re.compile(rf"[\[(]{_N},{_N}[\])]\s*,\s*[\[(]{_N},{_N}[\])]")
_BARE = re.compile(r"\s*" + r"(?:\s*,\s*|\s+)".join([f"({_NUMBER})"] * 4) + r"\s*")
_BRACKETS = re.compile(r"[\[(]([^\[\]()]{1,400})[\])]")


def parse_boxes(text: str) -> list[Box]:
    """Every `[x1, y1, x2, y2]`, `(x1, y1, x2, y2)` and `(x1, y1), (x2, y2)` of the text, in
    order, also inside JSON; if the whole text is four numbers, these. Corners are not sorted."""
    found = [
        (match.start(), _read(match))
        for pattern in (_LIST, _CORNERS)
        for match in pattern.finditer(text)
    ]
    if not found and (bare := _BARE.fullmatch(text)):
        found = [(0, _read(bare))]
    return [box for _, box in sorted(found)]


def why_no_box(text: str) -> str:
    """What stands where a box was expected: a list of another length, or of no numbers."""
    for match in _BRACKETS.finditer(text):
        items = [item.strip().strip("'\"") for item in match.group(1).split(",")]
        if len(items) > 1 and any(re.fullmatch(_NUMBER, item) for item in items):
            if len(items) != 4:
                return f"a list of {len(items)} numbers where a box has 4"
            wrong = next((i for i in items if not re.fullmatch(_NUMBER, i)), items[0])
            return f"{wrong[:20]!r} in a box is no finite number"
    return "no box [x1, y1, x2, y2] in the reply"


def is_only_box(text: str) -> bool:
    """Whether the text is one box and nothing else: `[1, 2, 3, 4]`, `(1, 2), (3, 4)` or four bare
    numbers."""
    return any(pattern.fullmatch(text.strip()) for pattern in (_LIST, _CORNERS, _BARE))


def _read(match: re.Match[str]) -> Box:
    x1, y1, x2, y2 = map(float, match.groups())
    return x1, y1, x2, y2


def as_box(value: object) -> Box:
    """Four finite numbers from a list or a text; ValueError if it is not one valid box."""
    boxes: list[Any] = [*parse_boxes(value)] if isinstance(value, str) else [value]
    try:
        (x1, y1, x2, y2) = (float(number) for number in boxes[-1])
    except (TypeError, ValueError, IndexError):
        raise ValueError(f"expected a box [x1, y1, x2, y2], got {value!r}") from None
    box = x1, y1, x2, y2
    if not is_valid(box):
        raise ValueError(f"box {value!r} must be finite with x2 > x1 and y2 > y1")
    return box


def is_valid(box: Sequence[float]) -> bool:
    """Finite, with x2 > x1 and y2 > y1."""
    return all(math.isfinite(v) for v in box) and box[2] > box[0] and box[3] > box[1]


def sorted_corners(box: Box) -> Box:
    """The same two corners, as top left and bottom right."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def scale_box(box: Box, factor: Sequence[float]) -> Box:
    """x times `factor[0]`, y times `factor[1]`."""
    (x1, y1, x2, y2), (fx, fy) = box, factor
    return x1 * fx, y1 * fy, x2 * fx, y2 * fy


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a: Box, b: Box) -> float:
    """Intersection over union in [0, 1] of two valid boxes."""
    inter = _intersection(a, b)
    union = area(a) + area(b) - inter
    return inter / union if union > 0 else 0.0


def giou(a: Box, b: Box) -> float:
    """IoU - (C - U) / C in (-1, 1], C the area of the smallest enclosing box."""
    x1, y1, x2, y2 = _enclosing(a, b)
    hull, union = (x2 - x1) * (y2 - y1), area(a) + area(b) - _intersection(a, b)
    return iou(a, b) - (hull - union) / hull if hull > 0 else iou(a, b)


def diou(a: Box, b: Box) -> float:
    """IoU - d^2 / c^2 in (-1, 1]: distance of the centres over diagonal of the enclosing box."""
    x1, y1, x2, y2 = _enclosing(a, b)
    diagonal = (x2 - x1) ** 2 + (y2 - y1) ** 2
    distance = (a[0] + a[2] - b[0] - b[2]) ** 2 / 4 + (a[1] + a[3] - b[1] - b[3]) ** 2 / 4
    return iou(a, b) - distance / diagonal if diagonal > 0 else iou(a, b)


def ciou(a: Box, b: Box) -> float:
    """DIoU - v^2 / (1 - IoU + v), v = (4 / pi^2)(difference of the aspect angles)^2."""
    angle = math.atan2(b[2] - b[0], b[3] - b[1]) - math.atan2(a[2] - a[0], a[3] - a[1])
    v = 4 / math.pi**2 * angle**2
    return diou(a, b) - (v * v / (1 - iou(a, b) + v) if v else 0.0)


def iou_inclusive(a: Box, b: Box) -> float:
    """IoU as VLM-R1's code has it: the intersection counts pixels from x1 to x2 - 1, both
    included, and is empty unless it is more than one pixel wide and high; areas are continuous."""
    x1, y1 = max(a[0], b[0]), max(a[1], b[1])
    x2, y2 = min(a[2] - 1, b[2] - 1), min(a[3] - 1, b[3] - 1)
    inter = (x2 - x1 + 1) * (y2 - y1 + 1) if x1 < x2 and y1 < y2 else 0.0
    union = area(a) + area(b) - inter
    return inter / union if union > 0 else 0.0


def _intersection(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _enclosing(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
