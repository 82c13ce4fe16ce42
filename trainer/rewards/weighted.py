"""Weighted sum of rewards, scored side by side."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import Field

from trainer.plugin import Frozen
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Score, ScoreStatus


class Term(Frozen):
    reward: Reward
    weight: float = Field(1.0, allow_inf_nan=False)
    """0 only logs the term: its faults leave the sum alone."""


class Weighted(CompositeReward):
    """value = sum_k weight_k * value_k; turn and token rewards are summed likewise,
    and a step ends where it does for some term.

    A term that does not apply (None) is skipped, as in TRL; if none applies the sum does not
    either. A fault of one term is a fault of the sum: the sample is worth None, not less.
    Parts: each term's value by name, and its own parts as `term/part`.
    """

    pointwise = True

    terms: dict[str, Term] = Field(min_length=1)
    """`{name: {reward: ..., weight: 1.0}}`."""
    missing: Literal["skip", "drop"] = "skip"
    """What a term that does not apply does: `skip` leaves it out of the sum, `drop` makes the
    whole sum None."""

    def children(self) -> dict[str, Reward]:
        return {name: term.reward for name, term in self.terms.items()}

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        columns = await asyncio.gather(
            *(ctx.score(child, group) for child in self.children().values())
        )
        return [
            self._sum(dict(zip(self.terms, row, strict=True))) for row in zip(*columns, strict=True)
        ]

    def _sum(self, scores: dict[str, Score]) -> Score:
        parts = {
            k: v for name, score in scores.items() for k, v in named_parts(name, score).items()
        }
        counted = {name: scores[name] for name, term in self.terms.items() if term.weight}
        absent = [name for name, score in counted.items() if score.value is None]
        for name in absent:
            if scores[name].status.is_fault:
                reason = f"{name}: {scores[name].reason}"
                return Score(parts=parts, status=scores[name].status, reason=reason)
        if counted and (len(absent) == len(counted) or (absent and self.missing == "drop")):
            reason = "; ".join(f"{name}: {scores[name].reason}" for name in absent)
            return Score(parts=parts, status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        total = Score(value=0.0, parts=parts)
        for name, score in counted.items():
            if score.value is not None:
                self._add(total, score, name, self.terms[name].weight)
        return total

    @staticmethod
    def _add(total: Score, score: Score, name: str, weight: float) -> None:
        total.value = (total.value or 0.0) + weight * (score.value or 0.0)
        for i, value in score.spans.items():
            total.spans[i] = total.spans.get(i, 0.0) + weight * value
        for i, values in score.tokens.items():
            before = total.tokens.get(i, [0.0] * len(values))
            total.tokens[i] = [a + weight * b for a, b in zip(before, values, strict=True)]
        for i, ends in score.steps.items():
            total.steps[i] = sorted({*total.steps.get(i, ()), *ends})
        if score.status is ScoreStatus.UNPARSABLE:
            total.status, total.reason = score.status, f"{name}: {score.reason}"
