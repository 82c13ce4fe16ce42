"""Whether a click in the reply hits the target."""

from __future__ import annotations

import math
from typing import Any, Literal

from trainer.ops import points
from trainer.ops.assignment import best_pairs
from trainer.ops.boxes import Box, scale_box
from trainer.ops.detections import gold_detections
from trainer.ops.parsing import Unparsable
from trainer.rewards.base import LocatedReward, Verdict
from trainer.types import Prompt, Rollout


class PointInBox(LocatedReward):
    """With p the point in the answer and the row's target box, or binary mask:

    hit 1[x1 <= x <= x2 and y1 <= y <= y2], a closed box, and of a mask 1[m[floor(y)][floor(x)]],
    in pixels; distance max(0, 1 - |p - centre| / D), in pixels of the image, D its diagonal; f1 =
    2 TP / (points + targets), each point and target matched once, for rows with several targets. A
    box in the reply is its centre. No pair of numbers, or a point that leaves the image: 0,
    `unparsable`. The target is `answer`, or the column `box` or `boxes`; several only with f1. A
    mask, for hit, is the column `mask`: rows of 0 and 1, as large as the image.
    """

    needs = frozenset({"answer|meta.box|meta.boxes|meta.mask"})
    gold_columns = ("mask", "box", "boxes")

    kind: Literal["hit", "distance", "f1"] = "hit"
    pick: Literal["first", "last"] = "first"
    """Which of several points counts (not of f1)."""
    outside: Literal["keep", "clip", "refuse"] = "refuse"

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        if prompt.meta.get("mask") is not None and self.kind == "hit":
            return self._in_mask(answer, prompt.meta["mask"], rollout, prompt)
        factors = self.factors(rollout, prompt)
        targets = [scale_box(d.box, factors) for d in gold_detections(gold) if d.box]
        if not targets or (len(targets) > 1 and self.kind != "f1"):
            raise ValueError(f"{len(targets)} target boxes in the row; {self.kind} takes one")
        found = self._found(answer)
        if self.kind == "f1":
            return self._f1(found, targets, rollout, prompt)
        x, y = self._within(self._chosen(found), rollout, prompt)
        if self.kind == "hit":
            return points.hits((x, y), targets[0])
        extents = self.extents(rollout, prompt)
        fx, fy = extents.factors(self.space, "pixels")
        there = points.centre(scale_box(targets[0], (fx, fy)))
        diagonal = points.distance((0, 0), extents.of("pixels"))
        return max(0.0, 1 - points.distance((x * fx, y * fy), there) / diagonal)

    @staticmethod
    def _found(answer: str) -> list[points.Point]:
        found = points.parse_points(answer)
        if not found:
            raise Unparsable("no point (x, y) in the reply")
        return found

    def _chosen(self, found: list[points.Point]) -> points.Point:
        return found[0] if self.pick == "first" else found[-1]

    def _in_mask(self, answer: str, mask: Any, rollout: Rollout, prompt: Prompt) -> bool:
        x, y = self._within(self._chosen(self._found(answer)), rollout, prompt)
        extents = self.extents(rollout, prompt)
        fx, fy = extents.factors(self.space, "pixels")
        width, height = extents.of("pixels")
        if len(mask) != height or any(len(row) != width for row in mask):
            raise ValueError(f"the column mask must have {height:g} rows of {width:g}")
        column, row = math.floor(x * fx), math.floor(y * fy)
        return column < width and row < height and bool(mask[row][column])

    def _f1(
        self, found: list[points.Point], targets: list[Box], rollout: Rollout, prompt: Prompt
    ) -> float:
        placed = [self._within(point, rollout, prompt) for point in found[:1000]]
        table = [[float(points.hits(point, box)) for box in targets] for point in placed]
        hits = sum(table[p][t] for p, t in best_pairs(table))
        return 2 * hits / (len(found) + len(targets))

    def _within(self, point: points.Point, rollout: Rollout, prompt: Prompt) -> points.Point:
        x, y = self.admitted(point, rollout, prompt)
        return x, y
