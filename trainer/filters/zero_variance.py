"""Drops groups whose rollouts were all worth the same: no group-relative signal in them."""

from __future__ import annotations

from pydantic import Field

from trainer.filters.base import Filter
from trainer.types import Group, Score


class ZeroVariance(Filter):
    """Dynamic sampling (DAPO, arXiv:2503.14476): keep a group if its largest and smallest scored
    return differ by more than `eps`. A return is the value and all turn and token rewards.

    Rollouts that could not be scored do not count; a group without any value is dropped. Groups
    of one rollout are kept. Under a shaped reward set `part`: DAPO filters by accuracy, before
    the length penalty.
    """

    eps: float = Field(1e-6, ge=0)
    part: str | None = None
    """Compare this part of the score instead of the return."""

    def why_drop(self, group: Group) -> str | None:
        if len(group.rollouts) == 1:
            return None
        scores = [r.score for r in group.rollouts if r.score and r.score.value is not None]
        values = [v for score in scores if (v := self._value(score)) is not None]
        if not values:
            return "zero variance: nothing scored"
        if max(values) - min(values) > self.eps:
            return None
        return f"zero variance: all {values[0]:.3g}"

    def _value(self, score: Score) -> float | None:
        return score.total if self.part is None else score.parts.get(self.part)
