"""A reward whose weight changes with the step."""

from __future__ import annotations

from dataclasses import replace

from trainer.ops.ramp import Ramp
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score


class Annealed(CompositeReward):
    """value = weight(step) * value; turn and token rewards likewise. Part `raw` is the value
    before. As a term of `weighted` it fades in or out."""

    pointwise = True

    reward: Reward
    weight: Ramp
    """`{first: 1, last: 0, until: 0.5}`; see `trainer.ops.ramp`."""

    def children(self) -> dict[str, Reward]:
        return {"raw": self.reward}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        weight = self.weight.at(ctx.step, ctx.total_steps)
        return [self._weighed(s, weight) for s in await ctx.score(self.reward, group)]

    @staticmethod
    def _weighed(score: Score, weight: float) -> Score:
        return replace(
            score,
            value=None if score.value is None else weight * score.value,
            spans={i: weight * value for i, value in score.spans.items()},
            tokens={i: [weight * v for v in values] for i, values in score.tokens.items()},
            parts=named_parts("raw", score),
        )
