"""Labels that the data brings with its answers."""

from __future__ import annotations

from pydantic import Field

from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Recorded(PointwiseReward):
    """The number (or true / false) in a data column; of a list, the one that belongs to the answer
    that `rollouts.agent: replay` plays. null, or a list that is too short, does not apply.
    """

    column: str = Field("correctness", min_length=1)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"meta.{self.column}"})

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        label = prompt.meta.get(self.column)
        if isinstance(label, list):
            place = rollout.meta.get("recorded", 0)
            label = label[place] if place < len(label) else None
        if label is None:
            reason = f"no label in column {self.column!r}"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        return float(label)
