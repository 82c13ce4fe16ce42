"""How long the reasoning is, in characters."""

from __future__ import annotations

from pydantic import Field, model_validator

from trainer.ops.parsing import tag_fields
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Characters(PointwiseReward):
    """1 if least <= characters in the first `<tag>`, stripped, <= most, else 0.

    No tag: 0, `unparsable`. ReFine-RFT's short thinking is `most: 9` (under 10 characters), its
    ablation `least: 20, most: 30`.
    """

    least: int = Field(0, ge=0)
    most: int | None = Field(9, ge=0)
    tag: str = "think"

    @model_validator(mode="after")
    def _ordered(self) -> Characters:
        if self.most is not None and self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}")
        return self

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        closing = f"</{self.tag}>"
        end = rollout.reply.find(closing)
        fields = tag_fields(rollout.reply[: end + len(closing)], self.tag) if end >= 0 else []
        if not fields:
            reason = f"no <{self.tag}> in the reply"
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
        length = len(fields[0].text)
        return self.least <= length and (self.most is None or length <= self.most)
