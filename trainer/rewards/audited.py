"""A reward with one beside it that is trusted: what is trained on, and how often the two agree."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score


class Audited(CompositeReward):
    """value = `reward`'s. `audit` only watches: its faults leave the value alone.

    Parts: `reward`, `audit`, `agrees` (1 if they differ by at most `tolerance`, else 0) and
    `fooled` (1 if `reward` is above `audit` by more than that): a judge that a policy has learned
    to please shows there. None where either has no value.
    """

    pointwise = True

    reward: Reward
    audit: Reward
    """A rule that says what is right, as far as there is one."""
    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False)

    def children(self) -> dict[str, Reward]:
        return {"reward": self.reward, "audit": self.audit}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [self._with_audit(**row) for row in await self.scored(group, ctx)]

    def _with_audit(self, reward: Score, audit: Score) -> Score:
        parts = named_parts("reward", reward) | named_parts("audit", audit)
        above = None
        if reward.value is not None and audit.value is not None:
            above = reward.value - audit.value
        parts["agrees"] = None if above is None else float(abs(above) <= self.tolerance)
        parts["fooled"] = None if above is None else float(above > self.tolerance)
        return replace(reward, parts=parts)
