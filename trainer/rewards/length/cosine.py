"""A reward of length: short where it is right, long where it is wrong."""

from __future__ import annotations

import math

from pydantic import Field

from trainer.rewards.base import CompositeReward, Reward, RewardContext, combined, unscored
from trainer.types import Group, Score, ScoreStatus


class Cosine(CompositeReward):
    """With L sampled tokens, M = max_tokens and f(a, b) = b - (b - a)(1 - cos(pi L / M)) / 2:

    f(right) where `reward` is at least `threshold`, else f(wrong): from b at L = 0 to a at L = M.
    Beyond M it stays at a, or swings back with `clamp: false`, as in VLM-R1's code; that code also
    takes every answer for right (`reward: none`, `threshold: 0`), so it is a length penalty alone.
    Parts: `answer`. A reply without tokens does not apply. Sources: arXiv:2502.03373, VLM-R1
    (arXiv:2504.07615).
    """

    pointwise = True

    reward: Reward
    max_tokens: int = Field(1024, gt=0)
    threshold: float = 0.7
    right: tuple[float, float] = (0.5, 1.0)
    """(a, b) of a right answer: at M tokens, at none."""
    wrong: tuple[float, float] = (0.0, -0.5)
    clamp: bool = True

    def children(self) -> dict[str, Reward]:
        return {"answer": self.reward}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        scores = await ctx.score(self.reward, group)
        return [
            self._one(score, len(rollout.completion), bool(rollout.reply))
            for score, rollout in zip(scores, group.rollouts, strict=True)
        ]

    def _one(self, score: Score, length: int, wrote: bool) -> Score:
        inner = {"answer": score}
        if (lost := unscored(inner)) is not None:
            return lost
        if not length and wrote:
            reason = "the reply has no token ids (column completion_ids)"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        right = (score.value or 0.0) >= self.threshold
        return combined(self.value(length, *(self.right if right else self.wrong)), inner)

    def value(self, length: int, a: float, b: float) -> float:
        """f(a, b)."""
        share = length / self.max_tokens
        share = min(share, 1.0) if self.clamp else share
        return b - (b - a) * (1 - math.cos(math.pi * share)) / 2
