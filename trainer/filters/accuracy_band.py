"""Keeps prompts that are neither too easy nor too hard for the policy as it is."""

from __future__ import annotations

from statistics import fmean

from pydantic import Field, model_validator

from trainer.filters.base import Filter
from trainer.types import Group

ROUNDING = 1e-9
"""0.2 as the mean of fives is not 0.2 to the last bit."""


class AccuracyBand(Filter):
    """Keeps a group if low <= mean return of its scored rollouts <= high, both ends included
    (PRIME, arXiv:2502.01456). A group without any value is dropped.

    Under a shaped or dense reward set `part`, so that accuracy alone decides.
    """

    low: float = Field(0.2, allow_inf_nan=False)
    high: float = Field(0.8, allow_inf_nan=False)
    part: str | None = None
    """Average this part of the score instead of the return."""

    @model_validator(mode="after")
    def _ordered(self) -> AccuracyBand:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: swap them")
        return self

    def why_drop(self, group: Group) -> str | None:
        scores = [r.score for r in group.rollouts if r.score and r.score.value is not None]
        found = [s.total if self.part is None else s.parts.get(self.part) for s in scores]
        values = [value for value in found if value is not None]
        if not values:
            return "accuracy band: nothing scored"
        mean = fmean(values)
        if mean < self.low - ROUNDING:
            return f"accuracy band: mean under {self.low:g}"
        return f"accuracy band: mean over {self.high:g}" if mean > self.high + ROUNDING else None
