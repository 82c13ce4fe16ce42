"""Where the boxes and points of answers lie in the picture, as ten-thousandths of its sides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.ops.boxes import parse_boxes, sorted_corners
from trainer.ops.points import parse_points
from trainer.ops.text import tag_content

WHOLE = 10_000
_LONGEST = 20_000
"""Characters that are searched, from the end."""
_MOST = 64
"""Boxes of one answer that are drawn."""

Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the reward of a task reads coordinates."""

    space: str
    gold_space: str
    grid: float | None = None
    tag: str = "answer"
    pick: str = "best"
    space_column: str | None = None
    points: bool = False
    """Pairs of numbers are places as well."""

    @classmethod
    def of(cls, reward: Any, task: str | None) -> Reading | None:
        """From the first reward in a resolved recipe's tree that has a `space`; a `route` is
        followed for `task`. None if no reward reads coordinates."""
        if isinstance(reward, list | tuple):
            found = (cls.of(item, task) for item in reward)
            return next((reading for reading in found if reading), None)
        if not isinstance(reward, dict):
            return None
        space = reward.get("space")
        if isinstance(space, str):
            return cls(
                space,
                reward.get("gold_space") or space,
                reward.get("grid"),
                reward.get("tag") or "answer",
                reward.get("pick") or "best",
                reward.get("space_column"),
                any(word in str(reward.get("type")) for word in ("point", "gaussian")),
            )
        if reward.get("type") == "route":
            return cls.of(reward["tasks"].get(task or "", reward.get("default")), task)
        return cls.of(list(reward.values()), task)

    def gold(
        self, answer: Any, size: Size, resized: Size | None, spaces: Mapping[str, str] | None = None
    ) -> list[list[int]]:
        """Places of a row's answer: numbers, text, or lists and dicts that hold them. `spaces`: of
        the row's columns, those that name a space."""
        space = (spaces or {}).get(self.space_column or "", self.gold_space)
        return self._scaled(self._numbers(answer), space, size, resized)

    def reply(self, reply: str, size: Size, resized: Size | None) -> list[list[int]]:
        """Places in a reply: those the reward looks at. A place that is no number is left out."""
        tagged = tag_content(reply, self.tag)
        found = list(self._in_text(reply if tagged is None else tagged))
        if self.pick in ("first", "last"):
            found = found[:1] if self.pick == "first" else found[-1:]
        return self._scaled(found, self.space, size, resized)

    def _scaled(self, found: Any, space: str, size: Size, resized: Size | None) -> list[list[int]]:
        width, height = self._extent(space, size, resized)
        places = []
        for place in found:
            scaled = [v / (height if i % 2 else width) for i, v in enumerate(place)]
            if all(math.isfinite(v) and abs(v) < 100 for v in scaled):
                places.append([round(v * WHOLE) for v in scaled])
        return places[:_MOST]

    def _extent(self, space: str, size: Size, resized: Size | None) -> Size:
        side = {"unit": 1.0, "thousand": 1000.0, "grid": self.grid}.get(space)
        if side:
            return side, side
        return (resized or size) if space == "resized" else size

    def _numbers(self, value: Any) -> Iterator[Sequence[float]]:
        if isinstance(value, str):
            yield from self._in_text(value)
        elif isinstance(value, dict):
            for inner in value.values():
                yield from self._numbers(inner)
        elif isinstance(value, list | tuple):
            if len(value) in (2, 4) and all(map(_is_number, value)):
                if len(value) == 4 or self.points:
                    yield tuple(map(float, value))
            else:
                for inner in value:
                    yield from self._numbers(inner)

    def _in_text(self, text: str) -> Iterator[Sequence[float]]:
        """Boxes; without any, points."""
        if boxes := parse_boxes(text[-_LONGEST:]):
            yield from map(sorted_corners, boxes)
        elif self.points:
            yield from parse_points(text[-_LONGEST:])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
