"""No reward: every rollout scores 0. For runs that do not learn from rewards (replay, SFT)."""

from __future__ import annotations

from trainer.rewards.base import Reward, RewardContext
from trainer.types import Group, Score


class NoReward(Reward):
    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [Score(value=0.0) for _ in group.rollouts]
