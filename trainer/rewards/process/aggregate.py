"""Makes one value of an answer's step scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from trainer.ops.steps import step_scores
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score, ScoreStatus


class Aggregate(CompositeReward):
    """value = min, mean, product, sum or last of the step scores of `reward`.

    `min` is how a verifier's steps are usually read: as good as the worst one. An answer without
    steps does not apply. Part `raw` is the child's own value, which does not enter.
    """

    reward: Reward
    """Gives step scores."""
    by: Literal["min", "mean", "product", "sum", "last"] = "min"
    keep_steps: bool = False
    """The step rewards stay as well, and count in the return; else the value stands alone."""

    def children(self) -> dict[str, Reward]:
        return {"raw": self.reward}

    def combine(self, scores: Sequence[float]) -> float:
        """The formula, for one answer with steps."""
        if self.by == "min":
            return min(scores)
        if self.by == "mean":
            return fmean(scores)
        if self.by == "product":
            return math.prod(scores)
        return math.fsum(scores) if self.by == "sum" else scores[-1]

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [self._score(s) for s in await ctx.score(self.reward, group)]

    def _score(self, score: Score) -> Score:
        parts = named_parts("raw", score)
        scores = [value for _, _, value in step_scores(score)]
        if score.value is None:
            return replace(score, parts=parts)
        if not scores:
            reason = "the answer has no steps"
            return Score(parts=parts, status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        if self.keep_steps:
            return replace(score, value=self.combine(scores), parts=parts)
        return Score(self.combine(scores), parts=parts, status=score.status, reason=score.reason)
