"""After Clip and Delta (arXiv 2410.15115): step scores that cannot be farmed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field, model_validator

from trainer.ops.steps import step_scores, with_step_scores
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score


class ClipDelta(CompositeReward):
    """The step scores r_1..r_K of `reward`, reshaped; its value, the outcome, stays.

    Clip: r_k = min(r_k, eta) - eta, never above 0. Then Delta: r_k - r_{k+1}, so that the sum from
    any step on is that step's own score and further steps earn nothing. The last step's score is
    dropped first, since the outcome sits there; an answer of one step has the outcome alone. Each
    is multiplied by alpha. With gamma 1 the return from step k under Delta is outcome + alpha r_k.
    For answers of one path. Part `raw` is the value, as the child gave it.
    """

    reward: Reward
    """Gives step scores and the outcome, for instance `process/steps`."""
    alpha: float = Field(0.1, gt=0, allow_inf_nan=False)
    """Weight of the step scores. The paper's value is not known; 0.02 to 0.5 is a start."""
    eta: float | None = Field(None, allow_inf_nan=False)
    """Threshold of Clip, of the scale of the scores (their median is a start); None: no Clip."""
    delta: bool = True

    @model_validator(mode="after")
    def _does_something(self) -> ClipDelta:
        if self.eta is None and not self.delta:
            raise ValueError("delta: false needs eta, or the step scores stay as they are")
        return self

    def children(self) -> dict[str, Reward]:
        return {"raw": self.reward}

    def reshape(self, scores: Sequence[float]) -> list[float]:
        """The formula, for the step scores of one answer."""
        kept = list(scores[:-1])
        if self.eta is not None:
            kept = [min(score, self.eta) - self.eta for score in kept]
        if self.delta and kept:
            kept = [*(a - b for a, b in itertools.pairwise(kept)), kept[-1]]
        return [self.alpha * score for score in kept] + [0.0] * bool(scores)

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [
            replace(
                with_step_scores(s, self.reshape([value for _, _, value in step_scores(s)])),
                parts=named_parts("raw", s),
            )
            for s in await ctx.score(self.reward, group)
        ]
