"""DAPO's soft punishment of replies that come near the length limit."""

from __future__ import annotations

from pydantic import Field, model_validator

from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Overlong(PointwiseReward):
    """With n sampled tokens, L = max_tokens and b = buffer:

    0 if n <= L - b; -penalty * (n - (L - b)) / b up to L; -penalty beyond.

    Add it to the answer's reward with `weighted`. Replies that come without tokens (recorded
    text) do not apply. Source: DAPO (arXiv:2503.14476).
    """

    max_tokens: int = Field(gt=0)
    """Hard limit L; the recipe's `rollouts.sampling.max_tokens`."""
    buffer: int = Field(gt=0)
    """Tokens before L over which the punishment grows."""
    penalty: float = Field(1.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits(self) -> Overlong:
        if self.buffer > self.max_tokens:
            raise ValueError(f"buffer {self.buffer} is longer than max_tokens {self.max_tokens}")
        return self

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        length = len(rollout.completion)
        if not length and rollout.reply:
            reason = "the reply has no token ids (column completion_ids)"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        excess = length - (self.max_tokens - self.buffer)
        return -self.penalty * min(max(excess / self.buffer, 0.0), 1.0)
