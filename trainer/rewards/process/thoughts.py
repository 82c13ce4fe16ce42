"""After TP-GRPO: one reward per run of right or wrong steps, by how able the policy is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from trainer.ops.steps import step_scores, with_step_scores
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score


class Thoughts(CompositeReward):
    """A thought is a longest run of steps with the same label, right where the step's score is at
    least `threshold`. On its last token a right one earns alpha (1 - p), a wrong one -alpha p;
    p is the share of the group's scored answers whose value is at least `solved`.

    So a weak policy is hardly punished for wrong turns, a strong one is, and splitting a step does
    not pay. The value stays. An answer without steps keeps its value alone. For answers of one
    path; pair it with advantage `grpo_process` and `outcome_weight: 1`. Parts: `raw`, the value as
    the child gave it, and `thoughts`, their count.
    """

    reward: Reward
    """Gives step labels and the outcome."""
    alpha: float = Field(0.5, gt=0, allow_inf_nan=False)
    threshold: float = Field(0.5, allow_inf_nan=False)
    solved: float = Field(1.0, allow_inf_nan=False)
    max_thoughts: int | None = Field(None, gt=0)
    """Thoughts of one answer that earn something, the first ones; bounds what alternating earns."""

    def children(self) -> dict[str, Reward]:
        return {"raw": self.reward}

    def rewards(self, scores: Sequence[float], rate: float) -> list[float | None]:
        """The formula, for the step scores of one answer; None on steps inside a thought."""
        right = [score >= self.threshold for score in scores]
        found: list[float | None] = []
        count = 0
        for number, label in enumerate(right):
            if number + 1 < len(right) and right[number + 1] == label:
                found.append(None)
                continue
            count += 1
            earns = self.max_thoughts is None or count <= self.max_thoughts
            worth = self.alpha * (1 - rate) if label else -self.alpha * rate
            found.append(worth if earns else None)
        return found

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        scores = await ctx.score(self.reward, group)
        values = [s.value for s in scores if s.value is not None]
        rate = sum(value >= self.solved for value in values) / max(1, len(values))
        return [self._score(s, rate) for s in scores]

    def _score(self, score: Score, rate: float) -> Score:
        rewards = self.rewards([value for _, _, value in step_scores(score)], rate)
        count = sum(reward is not None for reward in rewards)
        parts = named_parts("raw", score) | {"thoughts": float(count)}
        return replace(with_step_scores(score, rewards), parts=parts)
