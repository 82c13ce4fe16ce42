"""Lists of detections as models write them: JSON, nearly JSON, or boxes in text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.ops.boxes import Box, is_valid, parse_boxes, why_no_box
from trainer.ops.parsing import Unparsable

MOST = 1000
"""Items of the longest list that is read."""
_BOX_KEYS = ("bbox_2d", "bbox", "box", "position", "box_2d", "bounding_box")
_LABEL_KEYS = ("label", "class", "category", "name")
_SCORE_KEYS = ("confidence", "score")
_FENCE = re.compile(r"```[a-zA-Z]{0,12}\n?")
_NOTHING = frozenset({"none", "[]", "no objects", "no object", "null"})


@dataclass(frozen=True, slots=True)
class Detection:
    """One item of a list. `box` is None where the item holds no valid box: it then counts as a
    prediction that hits nothing."""

    box: Box | None
    label: str = ""
    score: float | None = None

    def scaled(self, factor: Sequence[float]) -> Detection:
        """x times `factor[0]`, y times `factor[1]`."""
        if self.box is None:
            return self
        (x1, y1, x2, y2), (fx, fy) = self.box, factor
        return replace(self, box=(x1 * fx, y1 * fy, x2 * fx, y2 * fy))


def parse_detections(
    text: str, *, strict: bool = False, nothing: Iterable[str] = _NOTHING
) -> list[Detection]:
    """The list in an answer: of `{"bbox_2d": [...], "label": ..., "confidence": ...}`, under the
    usual names of the keys, of `[x1, y1, x2, y2]`, or one such object or box.

    `None`, `No Objects`, `[]` are the empty list. Lenient: a code fence and text around the list
    are passed over, single quotes are read, a list that was cut is ended after its last whole
    item, and boxes in plain text count, without labels. Strict: the whole answer is the JSON list,
    in a code fence or not. Raises Unparsable.
    """
    body = fenced(text)
    if body.strip().strip(".").lower() in nothing:
        return []
    value = _loaded(body if strict else _outermost(body))
    if value is None and not strict:
        value = _repaired(_outermost(body))
    if value is None:
        found = [] if strict else parse_boxes(body)
        if not found:
            raise Unparsable("the answer is no JSON list" if strict else why_no_box(body))
        value = [list(box) for box in found]
    items = value if isinstance(value, list) else [value]
    if items and all(_is_number(item) for item in items):  # one box by itself, or one of several
        several = [] if strict else parse_boxes(body)
        items = [list(box) for box in several] if len(several) > 1 else [items]
    if len(items) > MOST:
        raise Unparsable(f"a list of {len(items)} items, more than {MOST}")
    found = [_detection(item) for item in items]
    if found and all(item.box is None for item in found):
        raise Unparsable(_fault(items[0]))
    return found


def fenced(text: str) -> str:
    """What the last complete code fence holds; the text itself without one."""
    end = text.rfind("```")
    start = text.rfind("```", 0, end) if end > 0 else -1
    if start < 0:
        return _FENCE.sub("", text, count=1) if end == 0 else text
    return text[_end_of_line(text, start) : end]


def gold_detections(value: Any) -> list[Detection]:
    """A row's boxes: a list as `parse_detections` reads it, or text with one. Pairs
    `[class, box]` are read too. ValueError if an item has no valid box."""
    if isinstance(value, str):
        try:
            found = parse_detections(value)
        except Unparsable as error:
            raise ValueError(f"expected a list of boxes, got {value[:80]!r}: {error}") from None
    else:
        items = list(value) if isinstance(value, list | tuple) else [value]
        if len(items) == 4 and all(_is_number(item) for item in items):
            items = [items]
        found = [_detection(item) for item in items]
    for i, item in enumerate(found):
        if item.box is None:
            raise ValueError(f"item {i} of {value!r:.80} must be a box with x2 > x1 and y2 > y1")
    return found


def _detection(item: Any) -> Detection:
    if isinstance(item, dict):
        keys = {str(key).lower(): entry for key, entry in item.items()}
        box = next((keys[key] for key in _BOX_KEYS if key in keys), None)
        label = next((keys[key] for key in _LABEL_KEYS if key in keys), "")
        score = next((keys[key] for key in _SCORE_KEYS if key in keys), None)
        return Detection(_box(box), str(label), _finite(score))
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str):
        return Detection(_box(item[1]), item[0])
    return Detection(_box(item))


def _finite(value: Any) -> float | None:
    return float(value) if _is_number(value) and math.isfinite(value) else None


def _box(value: Any) -> Box | None:
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if not all(_is_number(number) and abs(number) < 1e12 for number in value):  # also no NaN
        return None
    box = float(value[0]), float(value[1]), float(value[2]), float(value[3])
    return box if is_valid(box) else None


def _fault(item: Any) -> str:
    if isinstance(item, dict):
        item = next((v for k, v in item.items() if str(k).lower() in _BOX_KEYS), None)
    if not isinstance(item, list | tuple):
        return "no box in the list"
    if len(item) != 4:
        return f"a list of {len(item)} numbers where a box has 4"
    if not all(_is_number(number) and abs(number) < 1e12 for number in item):
        return "a box holds something that is no finite number"
    return "corners out of order"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _outermost(text: str) -> str:
    """From the first bracket that may begin a list of items to the last that may end it."""
    starts = [i for i in (text.find("["), text.find("{")) if i >= 0]
    end = max(text.rfind("]"), text.rfind("}"))
    return text[min(starts) : end + 1] if starts and end > min(starts) else text


def _repaired(text: str) -> Any:
    """JSON with single quotes, and cut lists."""
    text = text.replace("'", '"')
    value = _loaded(text)
    if value is None and "}" in text:
        value = _loaded(text[: text.rfind("}") + 1] + "]")
    return value


def _loaded(text: str) -> Any:
    """A list or an object; None if it is no JSON, or neither."""
    try:
        value = json.loads(text, parse_int=_bounded)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list | dict) else None


def _bounded(digits: str) -> float | int:
    return int(digits) if len(digits) < 16 else math.inf


def _end_of_line(text: str, start: int) -> int:
    match = _FENCE.match(text, start)
    return match.end() if match else start + 3
