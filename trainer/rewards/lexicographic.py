"""Rewards in order of importance: a later one counts only among equals."""

from __future__ import annotations

from pydantic import Field

from trainer.plugin import Frozen
from trainer.rewards.base import CompositeReward, Reward, RewardContext, combined, unscored
from trainer.types import Group, Score


class Level(Frozen):
    reward: Reward
    grain: float = Field(1e-9, gt=0, allow_inf_nan=False)
    """Values are rounded to multiples of it; of equal ones the next level decides."""


class Lexicographic(CompositeReward):
    """The rollouts of a group are sorted by their first level, equal ones by the second, and so
    on; value = (number that are worse + half of the others that are equal) / (G - 1), in [0, 1].

    Only the order within the group counts, so no scale has to be weighed against another. G counts
    rollouts that have every level; a level that does not apply leaves the rollout out, like a
    fault. A group of one is worth 0.5.
    """

    levels: dict[str, Level] = Field(min_length=1)
    """`{name: {reward: ..., grain: 0.05}}`, the most important first."""

    def children(self) -> dict[str, Reward]:
        return {name: level.reward for name, level in self.levels.items()}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        rows = await self.scored(group, ctx)
        keys = [self._key(scores) for scores in rows]
        ranked = [key for key in keys if key is not None]
        return [
            self._lost(scores) if key is None else combined(rank(key, ranked), scores)
            for scores, key in zip(rows, keys, strict=True)
        ]

    def _key(self, scores: dict[str, Score]) -> tuple[int, ...] | None:
        key = []
        for name, level in self.levels.items():
            value = scores[name].value
            if value is None:
                return None
            key.append(round(value / level.grain))
        return tuple(key)

    @staticmethod
    def _lost(scores: dict[str, Score]) -> Score:
        missing = {name: score for name, score in scores.items() if score.value is None}
        lost = unscored(scores) or unscored(missing)
        return lost if lost is not None else Score()


def rank(key: tuple[int, ...], keys: list[tuple[int, ...]]) -> float:
    """Share of the others that are worse, equal ones counting half."""
    worse = sum(other < key for other in keys)
    equal = sum(other == key for other in keys) - 1
    return (worse + equal / 2) / (len(keys) - 1) if len(keys) > 1 else 0.5
