"""The reward that a replayed answer was recorded with."""

from __future__ import annotations

from trainer.rewards.base import Reward, RewardContext
from trainer.types import Group, Score


class Recorded(Reward):
    """value = `Rollout.meta["recorded"]`, which agents such as `replay_pairs` set; None where the
    agent did not."""

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [Score(value=rollout.meta.get("recorded")) for rollout in group.rollouts]
