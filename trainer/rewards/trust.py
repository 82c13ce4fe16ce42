"""Thinking scores that count as far as they can be trusted, and less and less (Trust-GRPO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from pydantic import Field

from trainer.rewards.base import CompositeReward, Reward, RewardContext, combined, unscored
from trainer.types import Group, Prompt, Score


class Trust(CompositeReward):
    """R = outcome + gamma * alpha * exp(-step / T) * thinking, with
    gamma = 1 if mu_c >= mu_w else exp(mu_c - mu_w), mu_c and mu_w the mean thinking of the group's
    right (outcome >= `right`) and wrong rollouts, 0 without any.

    A fault of either is a fault of the sum; a rollout to which `thinking` does not apply gets its
    outcome alone and does not enter the means. Parts: `outcome`, `thinking`, `trust` (gamma).
    Source: SophiaVL-R1 (arXiv:2505.17018). Its code differs: `decay_steps: 12000`,
    `settled: [0.1, 0.9]`, `ignore_below: 0.2`, `distrust_without_right: false`.
    """

    outcome: Reward
    thinking: Reward
    """In [0, 1]: a judge or reward model that reads the reasoning."""
    alpha: float = Field(0.3, ge=0)
    decay_steps: float | None = Field(None, gt=0)
    """T; None: the steps of the run, as in the paper."""
    right: float = 0.5
    settled: tuple[float, float] | None = None
    """`[low, high]`: a group whose outcomes are all at most low, or all at least high, is not
    shown to `thinking`."""
    ignore_below: float = 0.0
    """Thinking counts as 0 where the outcome is under this. With outcomes of 0 and 1 nothing can
    be distrusted then."""
    distrust_without_right: bool = True
    """A group without a right answer has mu_c = 0, as in the paper; the code trusts it."""

    def children(self) -> dict[str, Reward]:
        return {"outcome": self.outcome, "thinking": self.thinking}

    def alone(self, prompt: Prompt) -> list[Reward]:
        asked = (self.outcome, self.thinking) if self.settled is None else (self.outcome,)
        return self.or_inside(asked, prompt)

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        outcomes = await ctx.score(self.outcome, group)
        if self._is_settled(outcomes):
            return [self._alone(score) for score in outcomes]
        thinking = await ctx.score(self.thinking, group)
        rows = [{"outcome": o, "thinking": t} for o, t in zip(outcomes, thinking, strict=True)]
        weight = self.alpha * math.exp(-ctx.step / (self.decay_steps or max(ctx.total_steps, 1)))
        pairs = [
            (o.value, self._heard(o.value, t.value))
            for o, t in zip(outcomes, thinking, strict=True)
            if o.value is not None and t.value is not None
        ]
        gamma = self.trust(pairs)
        return [self._sum(scores, gamma, weight) for scores in rows]

    def trust(self, pairs: Sequence[tuple[float, float]]) -> float:
        """gamma of a group's (outcome, thinking)."""
        right = [thinking for outcome, thinking in pairs if outcome >= self.right]
        wrong = [thinking for outcome, thinking in pairs if outcome < self.right]
        if not right and not self.distrust_without_right:
            return 1.0
        gap = (fmean(right) if right else 0.0) - (fmean(wrong) if wrong else 0.0)
        return min(1.0, math.exp(gap))

    def _sum(self, scores: dict[str, Score], gamma: float, weight: float) -> Score:
        if (lost := unscored(scores)) is not None:
            return lost
        outcome, thinking = scores["outcome"].value, scores["thinking"].value
        if outcome is None:
            return unscored({"outcome": scores["outcome"]}) or Score()
        total = outcome
        if thinking is not None:
            total += gamma * weight * self._heard(outcome, thinking)
        score = combined(total, scores)
        score.parts["trust"] = gamma
        return score

    def _heard(self, outcome: float, thinking: float) -> float:
        return 0.0 if outcome < self.ignore_below else thinking

    def _is_settled(self, outcomes: Sequence[Score]) -> bool:
        values = [score.value for score in outcomes if score.value is not None]
        if self.settled is None or not values:
            return self.settled is not None
        return max(values) <= self.settled[0] or min(values) >= self.settled[1]

    @staticmethod
    def _alone(score: Score) -> Score:
        lost = unscored({"outcome": score})
        return lost if lost is not None else combined(score.value or 0.0, {"outcome": score})
