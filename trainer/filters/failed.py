"""Drops groups of which too little could be scored."""

from __future__ import annotations

from pydantic import Field

from trainer.filters.base import Filter
from trainer.types import Group


class Failed(Filter):
    """Drops a group with fewer than `min_scored` rollouts that have a value."""

    min_scored: int = Field(2, gt=0)
    """A group-relative advantage needs two."""

    def why_drop(self, group: Group) -> str | None:
        scored = sum(r.score is not None and r.score.value is not None for r in group.rollouts)
        return None if scored >= self.min_scored else f"failed: under {self.min_scored} scored"
