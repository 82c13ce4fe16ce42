"""Vision-R1's criterion for lists of boxes: precision and recall under thresholds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from trainer.ops.assignment import best_pairs
from trainer.ops.boxes import Box, giou
from trainer.ops.detections import Detection, gold_detections, parse_detections
from trainer.ops.parsing import Unparsable
from trainer.rewards.base import LocatedReward, Verdict
from trainer.types import Prompt, Rollout, Score

Band = tuple[float, float]


class Criterion(LocatedReward):
    """Predicted and right boxes are matched one to one at the least cost L1 - [same label] - GIoU;
    v are the GIoU of the k = min(n_p, n_g) pairs, h(x; lo, hi) = 0 if x < lo, 1 if x > hi, else x.

    precision = mean of h(v; precision_band) over the k pairs; recall = h(sum of h(v; t, t) / n_g;
    recall_band) with t = recall_threshold; value precision + recall, both parts. No valid box: both
    0, or 1 where the row has none. Boxes are compared in the reply's space. A reply that is no list
    is `unparsable`. Progressive rules are two of these in `staged`, the stricter from step 1500 on:
    bands [.5, .75] and t .5, then precision_band [.75, .9] and t .75. Add the format term with
    `weighted`. Source: Vision-R1 (arXiv:2503.18013) and its code.
    """

    needs = frozenset({"answer|meta.boxes"})
    gold_columns = ("boxes",)

    precision_band: Band = (0.0, 1.0)
    recall_threshold: float = 0.5
    recall_band: Band = (0.0, 1.0)
    precision_over: Literal["matched", "predicted"] = "matched"
    """What precision is the mean over; `matched`, as in the code, charges nothing for boxes too
    many."""
    l1: Literal["raw", "relative", "none"] = "raw"
    """L1 distance in the cost: raw coordinates, as in the code, where pixels outweigh everything
    else; relative to the largest right coordinate; or left out."""

    @field_validator("precision_band", "recall_band")
    @classmethod
    def _ordered(cls, band: Band) -> Band:
        if band[0] > band[1]:
            raise ValueError(f"the lower end {band[0]} is above the upper end {band[1]}")
        return band

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        factors = self.factors(rollout, prompt)
        right = [item.scaled(factors) for item in gold_detections(gold)]
        try:
            given = parse_detections(answer, strict=self.strict)
        except Unparsable:
            if right:
                raise
            given = []
        valid = [item for item in given if item.box]
        for item in valid:
            self.admitted(item.box or (), rollout, prompt)
        precision, recall = self.value(valid, right)
        return Score(precision + recall, parts={"precision": precision, "recall": recall})

    def value(self, given: list[Detection], right: list[Detection]) -> tuple[float, float]:
        """(precision, recall) in one space."""
        if not given or not right:
            nothing = float(not given and not right)
            return (1.0, 1.0) if not given and not right else (nothing, nothing)
        pairs = best_pairs([[self._gain(p, g, right) for g in right] for p in given])
        values = [giou(_box(given[p]), _box(right[g])) for p, g in pairs]
        count = len(values) if self.precision_over == "matched" else len(given)
        precision = sum(band(v, *self.precision_band) for v in values) / count
        limit = self.recall_threshold
        share = sum(band(v, limit, limit) for v in values) / len(right)
        return precision, band(share, *self.recall_band)

    def _gain(self, a: Detection, b: Detection, right: list[Detection]) -> float:
        gain = giou(_box(a), _box(b)) + (a.label == b.label)
        if self.l1 == "none":
            return gain
        far = sum(abs(x - y) for x, y in zip(_box(a), _box(b), strict=True))
        scale = max(max(_box(g)) for g in right) if self.l1 == "relative" else 1.0
        return gain - far / max(scale, 1e-9)


def _box(item: Detection) -> Box:
    return item.box or (0.0, 0.0, 0.0, 0.0)


def band(x: float, low: float, high: float) -> float:
    """h(x; low, high)."""
    return 0.0 if x < low else 1.0 if x > high else x
