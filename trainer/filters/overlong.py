"""Drops groups in which too many replies were cut off."""

from __future__ import annotations

from pydantic import Field

from trainer.filters.base import Filter
from trainer.types import Group, Status


class Overlong(Filter):
    """Drops a group if more than `max_share` of its rollouts hit the length limit."""

    max_share: float = Field(0.5, ge=0, lt=1)

    def why_drop(self, group: Group) -> str | None:
        cut = sum(rollout.status is Status.TRUNCATED for rollout in group.rollouts)
        if cut <= self.max_share * len(group.rollouts):
            return None
        return f"overlong: over {self.max_share:.0%} truncated"
