"""Visual-RFT's detection reward: overlap and honest confidence."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.ops.boxes import Box, iou
from trainer.ops.detections import Detection, gold_detections, parse_detections
from trainer.ops.parsing import Unparsable
from trainer.rewards.base import LocatedReward, Verdict
from trainer.types import Prompt, Rollout, Score


class ConfidentDetection(LocatedReward):
    """Boxes said twice are dropped. From the surest on, each takes the free right box that it
    overlaps most; an IoU above `threshold` (not equal) takes that box and counts, else it is 0.

    iou = sum IoU_i / max(n_p, n_g); confidence = mean of c_i where IoU_i > 0 and 1 - c_i
    elsewhere, cut to [0, 1]. Value: iou_weight * iou + confidence_weight * confidence; both are
    parts. Every item needs a confidence. No list, an empty one, or an item without box or
    confidence: 0, `unparsable`. Add the format term with `weighted`. Source: Visual-RFT
    (arXiv:2503.01785) and its code, whose first look at the text with math-verify is left out.
    """

    needs = frozenset({"answer|meta.boxes"})
    gold_columns = ("boxes",)

    space: Literal["pixels", "resized", "unit", "thousand", "grid"] = "thousand"
    threshold: float = Field(0.5, ge=0, lt=1)
    per: Literal["larger", "predicted"] = "larger"
    """What the sum of IoU is divided by: max(n_p, n_g), as in the code; or n_p, as in the paper,
    where one sure box is enough."""
    iou_weight: float = 1.0
    confidence_weight: float = 1.0
    credit_absence: bool = False
    """Full credit for an empty list where the row has no box; in the code it cannot score."""

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        factors = self.factors(rollout, prompt)
        right = [item.scaled(factors).box for item in gold_detections(gold)]
        given = parse_detections(answer, strict=self.strict)
        if not given and not right and self.credit_absence:
            return self._score(1.0, 1.0)
        if not given:
            raise Unparsable("an empty list")
        if any(item.box is None or item.score is None for item in given):
            raise Unparsable("an item without box or confidence")
        for item in given:
            self.admitted(item.box or (), rollout, prompt)
        return self._score(*self.value(given, [box for box in right if box]))

    def value(self, given: list[Detection], right: list[Box]) -> tuple[float, float]:
        """(iou, confidence) of predictions and right boxes in one space."""
        kept = list({item.box: item for item in reversed(given)}.values())[::-1]
        kept.sort(key=lambda item: -(item.score or 0.0))
        free, overlaps, trust = list(right), 0.0, 0.0
        for item in kept:
            values = [iou(item.box, box) for box in free] if item.box else []
            best = max(values, default=0.0)
            hit = best > self.threshold
            if hit:
                free.pop(values.index(best))
                overlaps += best
            sure = item.score or 0.0
            trust += sure if hit and best > 0 else 1 - sure
        count = len(kept) if self.per == "predicted" else max(len(kept), len(right))
        return min(1.0, overlaps / count), min(max(trust / len(kept), 0.0), 1.0)

    def _score(self, overlap: float, trust: float) -> Score:
        total = self.iou_weight * overlap + self.confidence_weight * trust
        return Score(total, parts={"iou": overlap, "confidence": trust})
