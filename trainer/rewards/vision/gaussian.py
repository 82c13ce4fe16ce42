"""Dense rewards for clicks and boxes on screens (GUI-G2)."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from trainer.ops.boxes import Box, as_box, parse_boxes, scale_box, why_no_box
from trainer.ops.parsing import Unparsable
from trainer.ops.points import parse_points
from trainer.rewards.base import LocatedReward, Verdict
from trainer.types import Prompt, Rollout, Score


class Gaussian(LocatedReward):
    """A box is a Gaussian round its centre with standard deviations alpha times its sides.

    point = exp(-((mx - gx)^2 / sx^2 + (my - gy)^2 / sy^2) / 2), the density of the target's
    Gaussian at the predicted centre; coverage = exp(-D), D = d^T S^-1 d / 8 +
    ln(det S / sqrt(det Sp det Sg + eps)) / 2, S the mean of both covariances (+ eps): their
    Bhattacharyya overlap. Value point_weight * point + coverage_weight * coverage; both are parts.
    The first box of the answer counts, in pixels of its space (eps matters in small units). A point
    (x, y) in place of a box has coverage 0. No box: 0, `unparsable`. Source: GUI-G2
    (arXiv:2507.15846) and its code, which sums both with a strict format term.
    """

    needs = frozenset({"answer|meta.box"})
    gold_columns = ("box",)

    alpha: float = Field(0.5, gt=0)
    eps: float = Field(1e-8, ge=0)
    digits: int | None = Field(3, ge=0)
    """Decimals that each term is rounded to, as in the code; null does not round."""
    point_weight: float = 1.0
    coverage_weight: float = 1.0

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        target = scale_box(as_box(gold), self.factors(rollout, prompt))
        found = parse_boxes(answer)
        if found:
            x1, y1, x2, y2 = self.admitted(found[0], rollout, prompt)
        elif points := parse_points(answer):
            x1, y1 = x2, y2 = self.admitted(points[0], rollout, prompt)
        else:
            raise Unparsable(why_no_box(answer))
        box = x1, y1, x2, y2
        point = self._rounded(self.point(box, target))
        coverage = self._rounded(self.coverage(box, target)) if found else 0.0
        total = self.point_weight * point + self.coverage_weight * coverage
        return Score(total, parts={"point": point, "coverage": coverage})

    def point(self, box: Box, target: Box) -> float:
        """The density at the predicted centre, 1 at the target's."""
        away = [
            ((box[i] + box[i + 2]) / 2 - (target[i] + target[i + 2]) / 2)
            / (self.alpha * (target[i + 2] - target[i]))
            for i in (0, 1)
        ]
        return math.exp(-(away[0] ** 2 + away[1] ** 2) / 2)

    def coverage(self, box: Box, target: Box) -> float:
        """The overlap of both Gaussians."""
        given, right = self._variances(box), self._variances(target)
        both = [(a + b) / 2 for a, b in zip(given, right, strict=True)]
        apart = 0.0
        for i in (0, 1):
            away = (box[i] + box[i + 2]) / 2 - (target[i] + target[i + 2]) / 2
            apart += away**2 / (both[i] + self.eps) / 8
        root = math.sqrt(math.prod(given) * math.prod(right) + self.eps)
        if root == 0:
            return 0.0
        return math.exp(-min(apart + math.log(math.prod(both) / root) / 2, 700.0))

    def _variances(self, box: Box) -> list[float]:
        return [(self.alpha * (box[i + 2] - box[i])) ** 2 for i in (0, 1)]

    def _rounded(self, value: float) -> float:
        return value if self.digits is None else round(value, self.digits)
