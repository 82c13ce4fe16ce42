"""Reshapes the value of another reward."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from pydantic import Field, field_validator, model_validator

from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score


class Shaped(CompositeReward):
    """y = clip(scale * p(s(x)) + shift), with s the steps and p the power; each is optional.

    s(x) = level of the highest threshold that x reaches, `below` under all of them;
    p(x) = sign(x) * |x| ** power. Values of None stay None; turn and token rewards are passed on
    unchanged. Part `raw` is x. Example: `{scale: 2, shift: -1}` maps 0/1 to -1/+1.
    """

    pointwise = True

    reward: Reward
    steps: tuple[tuple[float, float], ...] = ()
    """`[[threshold, level], ...]`, thresholds rising: `[[0.5, 0.5], [0.75, 1.0]]`."""
    below: float = Field(0.0, allow_inf_nan=False)
    """Level under the lowest threshold."""
    power: float = Field(1.0, gt=0, allow_inf_nan=False)
    scale: float = Field(1.0, allow_inf_nan=False)
    shift: float = Field(0.0, allow_inf_nan=False)
    clip: tuple[float, float] | None = None
    """Lowest and highest value that may come out."""

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        thresholds = [threshold for threshold, _ in steps]
        if any(not math.isfinite(v) for step in steps for v in step):
            raise ValueError("thresholds and levels must be finite")
        if any(b <= a for a, b in itertools.pairwise(thresholds)):
            raise ValueError(f"thresholds must rise, got {thresholds}")
        return steps

    @model_validator(mode="after")
    def _ordered(self) -> Shaped:
        if self.clip and not self.clip[0] <= self.clip[1]:
            raise ValueError(f"clip: lowest {self.clip[0]} is above highest {self.clip[1]}")
        return self

    def children(self) -> dict[str, Reward]:
        return {"raw": self.reward}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [
            replace(
                s,
                value=None if s.value is None else self.shape(s.value),
                parts=named_parts("raw", s),
            )
            for s in await ctx.score(self.reward, group)
        ]

    def shape(self, x: float) -> float:
        """The formula, for one value."""
        if self.steps:
            reached = [level for threshold, level in self.steps if x >= threshold]
            x = reached[-1] if reached else self.below
        y = self.scale * math.copysign(abs(x) ** self.power, x) + self.shift
        return min(max(y, self.clip[0]), self.clip[1]) if self.clip else y
