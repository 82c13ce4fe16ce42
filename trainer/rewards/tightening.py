"""A reward under thresholds that change with the step."""

from __future__ import annotations

from dataclasses import replace

from trainer.ops.ramp import Ramp
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score


class Tightening(CompositeReward):
    """h(x; low, high) = 0 if x < low, 1 if x > high, else x, with both thresholds a function of the
    step: easy at first, then strict. low = high makes it 0 or 1 (x itself where x is equal).

    None stays None; turn and token rewards are passed on unchanged. Part `raw` is x. After the
    progressive rules of Vision-R1 (arXiv:2503.18013).
    """

    pointwise = True

    reward: Reward
    low: Ramp
    """For instance `{first: 0.5, last: 0.75, until: 1500, shape: step}`, or a number."""
    high: Ramp

    def children(self) -> dict[str, Reward]:
        return {"raw": self.reward}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        low = self.low.at(ctx.step, ctx.total_steps)
        high = self.high.at(ctx.step, ctx.total_steps)
        if low > high:
            raise ValueError(f"low {low:g} is above high {high:g} at step {ctx.step}")
        return [
            replace(
                s,
                value=None if s.value is None else band(s.value, low, high),
                parts=named_parts("raw", s),
            )
            for s in await ctx.score(self.reward, group)
        ]


def band(x: float, low: float, high: float) -> float:
    """The formula."""
    return 0.0 if x < low else 1.0 if x > high else x
