"""VLM-R1's weighted score of a detection list."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from trainer.ops.assignment import best_first_pairs
from trainer.ops.boxes import iou_inclusive
from trainer.ops.detections import Detection, gold_detections, parse_detections
from trainer.rewards.base import LocatedReward, Verdict
from trainer.types import Prompt, Rollout, Score


class WeightedDetection(LocatedReward):
    """(position * pos + label * lab + completeness * comp) / (sum of the three weights).

    Pairs are taken by the largest IoU first, down to `threshold`. pos = sum of the IoU of pairs
    with the same label (any case) / n_g; lab = number of such pairs / n_g;
    comp = 1 - (missed / n_g + unmatched / n_p) / 2. A pair with another label uses both boxes up.
    No right box: 1 if there is no prediction, else 0; no prediction: 0. The IoU is the code's,
    which counts pixels in the intersection. Parts pos, lab, comp. Source: VLM-R1
    (arXiv:2504.07615) and its code.
    """

    needs = frozenset({"answer|meta.boxes"})
    gold_columns = ("boxes",)

    position: float = Field(0.7, ge=0)
    label: float = Field(0.0, ge=0)
    completeness: float = Field(0.3, ge=0)
    threshold: float = Field(0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _some(self) -> WeightedDetection:
        if self.position + self.label + self.completeness <= 0:
            raise ValueError("position, label and completeness are all 0: give one a weight")
        return self

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        factors = self.factors(rollout, prompt)
        right = [item.scaled(factors) for item in gold_detections(gold)]
        given = parse_detections(answer, strict=self.strict)
        for item in given:
            self.admitted(item.box or (), rollout, prompt)
        if not given or not right:
            return float(not given and not right)
        return self.value(given, right)

    def value(self, given: list[Detection], right: list[Detection]) -> Score:
        """The formula, of two lists that are not empty."""
        table = [
            [iou_inclusive(p.box, g.box) if p.box and g.box else 0.0 for g in right] for p in given
        ]
        pairs = best_first_pairs(table, self.threshold)
        same = [table[p][g] for p, g in pairs if _plain(given[p]) == _plain(right[g])]
        missed, unmatched = len(right) - len(pairs), len(given) - len(pairs)
        parts = {
            "pos": sum(same) / len(right),
            "lab": len(same) / len(right),
            "comp": 1 - (missed / len(right) + unmatched / len(given)) / 2,
        }
        weights = (self.position, self.label, self.completeness)
        total = sum(w * v for w, v in zip(weights, parts.values(), strict=True))
        return Score(total / sum(weights), parts={**parts})


def _plain(item: Detection) -> str:
    return item.label.strip().lower()
