"""How well a list of boxes in the reply covers the row's list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator

from trainer.ops.assignment import best_first_pairs, best_pairs, greedy_pairs
from trainer.ops.average_precision import COCO, Image, Precision, mean_ap
from trainer.ops.boxes import iou
from trainer.ops.detections import Detection, gold_detections, parse_detections
from trainer.ops.parsing import Unparsable
from trainer.ops.text import text_of
from trainer.rewards.base import Figure, LocatedReward, Pattern, Verdict
from trainer.types import Prompt, Rollout


class DetectionSet(LocatedReward):
    """One-to-one matching of n_p predicted and n_g right boxes by their IoU M (0 where labels are
    asked for and differ); a pair with M >= threshold is a hit, TP of them.

    f1 is F_beta = (1 + b^2) P R / (b^2 P + R) with P = TP / n_p, R = TP / n_g; miou the sum of
    the matched M over max(n_p, n_g); map the mean over classes and thresholds of COCO's average
    precision, predictions ranked by their confidence (all 1: by order), of classes that the row
    has. Both lists empty: 1; one of them: 0. An item without a valid box is a prediction that hits
    nothing. No list in the answer: 0, `unparsable`; `None` or `[]` is the empty list. The row's
    list is `answer`, or the column `boxes`. Sources: COCO arXiv:1405.0312; `guard` is the
    over-prediction factor of VLM-R1 (arXiv:2504.07615).
    """

    needs = frozenset({"answer|meta.boxes"})
    gold_columns = ("boxes",)

    measure: Literal["f1", "miou", "map"] = "f1"
    threshold: float = Field(0.5, gt=0, le=1)
    """Least IoU of a hit. Of f1."""
    beta: float = Field(1.0, gt=0)
    """Weight of recall against precision. Of f1."""
    thresholds: tuple[float, ...] = Field(COCO, min_length=1)
    """Of map; `[0.5]` for AP50."""
    labels: bool = False
    """Labels must be the same, in any case of letters."""
    matcher: Literal["hungarian", "greedy", "best_first"] = "hungarian"
    """hungarian: the largest sum of M. greedy: predictions in order, each the free box it covers
    best, ties to the later one. best_first: the largest M first. Of f1 and miou."""
    least: float = Field(0.0, ge=0, le=1)
    """Matched M below this count as 0. Of miou."""
    guard: bool = False
    """Multiply by min(1, n_g / n_p): average precision alone hardly punishes more boxes."""
    confidences: bool = True
    """Of map: rank by the confidence in the reply. Off: by order."""
    asked: Pattern | None = None
    """Of the figure mAP: what stands in the first brackets of this expression, in the prompt's last
    message, is the class of all boxes of the row: `belonging to the category '([^']+)'`."""

    @field_validator("asked")
    @classmethod
    def _has_brackets(cls, value: str | None) -> str | None:
        if value is not None and not re.compile(value).groups:
            raise ValueError("needs brackets around the class: category '([^']+)'")
        return value

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = self._right(gold, rollout, prompt)
        given = self._given(answer, rollout, prompt)
        if not given or not right:
            return float(not given and not right)
        value = self.value(given, right)
        return value * min(1.0, len(right) / len(given)) if self.guard else value

    def figures(self, answers: Sequence[tuple[Prompt, Rollout]]) -> dict[str, Figure]:
        """Of map: `mAP` over all answers as one data set, ranked together, as detectors are
        compared. An answer that cannot be read predicts nothing."""
        if self.measure != "map":
            return {}
        images = [self._image(prompt, rollout) for prompt, rollout in answers]
        return {"mAP": Precision(images, self.thresholds).over}

    def _image(self, prompt: Prompt, rollout: Rollout) -> Image:
        right = self._right(self.gold(prompt), rollout, prompt)
        try:
            given = self._given(self.answer(rollout), rollout, prompt)
        except Unparsable:
            given = []
        if self.asked is None:
            return given, right
        found = re.search(self.asked, text_of(prompt.messages[-1].get("content")))
        label = found.group(1) if found else ""
        return [replace(p, label=label) for p in given], [replace(g, label=label) for g in right]

    def _right(self, gold: Any, rollout: Rollout, prompt: Prompt) -> list[Detection]:
        factors = self.factors(rollout, prompt)
        return [self._plain(item.scaled(factors)) for item in gold_detections(gold)]

    def _given(self, answer: str, rollout: Rollout, prompt: Prompt) -> list[Detection]:
        given = [self._plain(item) for item in parse_detections(answer, strict=self.strict)]
        return [self._placed(item, rollout, prompt) for item in given]

    def value(self, given: list[Detection], right: list[Detection]) -> float:
        """The formula, of two lists that are not empty, in one space."""
        if self.measure == "map":
            return mean_ap([(given, right)], self.thresholds) or 0.0
        table = [[self._overlap(p, g) for g in right] for p in given]
        matched = [table[p][g] for p, g in self._pairs(table)]
        if self.measure == "miou":
            total = sum(value for value in matched if value >= self.least)
            return total / max(len(given), len(right))
        hits = sum(value >= self.threshold for value in matched)
        square = self.beta**2
        return (1 + square) * hits / (square * len(right) + len(given))

    def _pairs(self, table: list[list[float]]) -> list[tuple[int, int]]:
        floor = max(self.threshold if self.measure == "f1" else self.least, 1e-9)
        if self.matcher == "greedy":
            return greedy_pairs(table, floor, later=True)
        if self.matcher == "best_first":
            return best_first_pairs(table, floor)
        return best_pairs(table)

    def _overlap(self, a: Detection, b: Detection) -> float:
        if a.box is None or b.box is None or (self.labels and a.label != b.label):
            return 0.0
        return iou(a.box, b.box)

    def _plain(self, item: Detection) -> Detection:
        label = item.label.strip().lower() if self.labels else ""
        return Detection(item.box, label, item.score if self.confidences else None)

    def _placed(self, item: Detection, rollout: Rollout, prompt: Prompt) -> Detection:
        if item.box is None or self.outside == "keep":
            return item
        x1, y1, x2, y2 = self.admitted(item.box, rollout, prompt)
        box = (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
        return Detection(box, item.label, item.score)
