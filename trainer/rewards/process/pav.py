"""After Rewarding Progress (arXiv 2410.08146): what a step changed in the chance of success."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from trainer.ops.steps import step_scores, with_step_scores
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Rollout, Score, Status


class Pav(CompositeReward):
    """r_h = alpha (F(q_h) - F(q_{h-1})), with F(q) = 1 - (1 - q)^K: the chance that the best of K
    answers of the prover is right; the value, the outcome, stays.

    q_h in [0, 1] are the step scores of `reward`: the prover's chance of success after step h. q_0
    is that of the prompt. The sum telescopes, so that repeating steps earns nothing. The prover
    should not be the policy itself: with K = 1 the gradient is that of the outcome in expectation.
    For answers of one path. Part `raw` is the value, as the child gave it.
    """

    reward: Reward
    """Gives q and the outcome: `process/monte_carlo`, or a value model."""
    alpha: float = Field(1.0, gt=0, allow_inf_nan=False)
    """The paper's value is not known; 1 to 5 is a start."""
    best_of: int = Field(4, gt=0)
    """K."""
    start: float | None = Field(None, ge=0, le=1)
    """q_0; None: the child's part `start`."""
    final_is_outcome: bool = True
    """The last q of a finished answer is its outcome: a learned q drifts from it."""

    def children(self) -> dict[str, Reward]:
        return {"raw": self.reward}

    def progress(self, chances: Sequence[float]) -> list[float]:
        """alpha A of each step from q_0, q_1, ..., q_H. Raises ValueError outside [0, 1]."""
        if outside := [q for q in chances if not 0 <= q <= 1]:
            raise ValueError(
                f"process/pav needs chances in [0, 1] as step scores, and {self.reward.name()!r} "
                f"gave {outside[0]:g}"
            )
        best = [1 - (1 - q) ** self.best_of for q in chances]
        return [self.alpha * (b - a) for a, b in itertools.pairwise(best)]

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        scores = await ctx.score(self.reward, group)
        return [self._score(s, r) for s, r in zip(scores, group.rollouts, strict=True)]

    def _score(self, score: Score, rollout: Rollout) -> Score:
        chances = [value for _, _, value in step_scores(score)]
        parts = named_parts("raw", score)
        if not chances or score.value is None:
            return replace(score, parts=parts)
        start = score.parts.get("start") if self.start is None else self.start
        if start is None:
            raise ValueError(
                f"process/pav needs the chance of success before the first step: "
                f"{self.reward.name()!r} gives no part `start`, so set `start`"
            )
        if self.final_is_outcome and rollout.status is Status.OK:
            chances[-1] = score.value
        return replace(with_step_scores(score, self.progress([start, *chances])), parts=parts)
