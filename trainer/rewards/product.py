"""Product of rewards."""

from __future__ import annotations

import math

from pydantic import Field

from trainer.plugin import Frozen
from trainer.rewards.base import CompositeReward, Reward, RewardContext, combined, unscored
from trainer.types import Group, Score


class Factor(Frozen):
    reward: Reward
    power: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Exponent, applied to max(0, value)."""
    floor: float = Field(0.0, ge=0, lt=1)
    """Least value of the factor: with 0.1 a factor of 0 leaves a tenth."""


class Product(CompositeReward):
    """value = prod_k max(floor_k, value_k) ** power_k: good only where every factor is.

    A factor of power 1 and floor 0 may be negative and turns the sign. A factor that does not apply
    is left out; if none applies the product does not either; a fault of one is a fault of the
    product. Turn and token rewards of factors are not passed on.
    """

    pointwise = True

    factors: dict[str, Factor] = Field(min_length=1)
    """`{name: {reward: ..., power: 1.0}}`."""

    def children(self) -> dict[str, Reward]:
        return {name: factor.reward for name, factor in self.factors.items()}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [self._product(scores) for scores in await self.scored(group, ctx)]

    def _product(self, scores: dict[str, Score]) -> Score:
        if (lost := unscored(scores)) is not None:
            return lost
        values = [
            self._raised(score.value, self.factors[name])
            for name, score in scores.items()
            if score.value is not None
        ]
        return combined(math.prod(values), scores)

    @staticmethod
    def _raised(value: float, factor: Factor) -> float:
        if factor.power == 1 and factor.floor == 0:
            return value
        return max(value, factor.floor) ** factor.power
