"""A bonus where the reasoning makes the answer likely (GRPO-CARE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import asynccontextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from trainer.errors import MissingService
from trainer.ops.parsing import Unparsable, answer_field
from trainer.ops.token_spans import character_spans, token_range
from trainer.rewards.base import CompositeReward, Reward, RewardContext, combined, unscored
from trainer.types import Group, Rollout, Score

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trainer.context import Context


class Care(CompositeReward):
    """R_i = a_i + f_i + bonus * a_i where i is accurate and consistent.

    Accurate, M: a_i > `least` and a_i >= the group's mean accuracy. p_i = exp(mean log-prob of
    the tokens inside `<answer>`, given prompt and own reasoning), at most `cap`; consistent:
    p_i >= mean of p over M - `margin`. No accurate rollout: no bonus. A rollout without the tag
    has p = 0. The log-probs are those of `model`; the mean is over the prompt's group. Parts:
    accuracy, format, likelihood, bonus. Source: GRPO-CARE (arXiv:2506.16141), whose reference
    follows the policy as a moving average and which has no KL term.
    """

    accuracy: Reward
    format: Reward
    bonus: float = Field(0.5, ge=0)
    least: float = 0.1
    cap: float = Field(0.95, gt=0, le=1)
    margin: float = Field(0.01, ge=0)
    model: Literal["policy", "reference"] = "policy"
    """Whose log-probs; the recipe's `reference` says what it is."""
    tag: str = "answer"

    _renderer: Any = PrivateAttr(None)

    def children(self) -> dict[str, Reward]:
        return {"accuracy": self.accuracy, "format": self.format}

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"engine" if self.model == "policy" else "reference"}

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._renderer = context.renderer
        async with super().open(context):
            yield

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        rows = await self.scored(group, ctx)
        accuracy = [scores["accuracy"].value for scores in rows]
        known = [value for value in accuracy if value is not None]
        mean = fmean(known) if known else 0.0
        accurate = [v is not None and v > self.least and v >= mean for v in accuracy]
        likely = await self._likelihoods(group.rollouts, accurate, ctx)
        given = self.bonuses([v or 0.0 for v in accuracy], accurate, likely)
        return [self._sum(*row) for row in zip(rows, given, likely, strict=True)]

    def bonuses(
        self, accuracy: Sequence[float], accurate: Sequence[bool], likely: Sequence[float | None]
    ) -> list[float]:
        """The bonus of each rollout."""
        among = [p for p, right in zip(likely, accurate, strict=True) if right and p is not None]
        bar = fmean(among) - self.margin if among else math.inf
        return [
            self.bonus * a if right and p is not None and p >= bar else 0.0
            for a, right, p in zip(accuracy, accurate, likely, strict=True)
        ]

    async def _likelihoods(
        self, rollouts: Sequence[Rollout], wanted: Sequence[bool], ctx: RewardContext
    ) -> list[float | None]:
        """p of the wanted ones; 0 without an answer in the tag, None for the others."""
        if self._renderer is None:
            raise MissingService("care needs a model: it works in `cohort train` and `cohort eval`")
        spans = [self._answer(r) if w else None for r, w in zip(rollouts, wanted, strict=True)]
        asked = [i for i, span in enumerate(spans) if span]
        rows = [(self._tokens(rollouts[i]), self._inputs(rollouts[i])) for i in asked]
        columns = await ctx.logprobs(rows, self.model) if rows else []
        found: list[float | None] = [0.0 if w else None for w in wanted]
        for i, column in zip(asked, columns, strict=True):
            span = spans[i] or range(0)
            values = [column[t - 1] for t in span]
            found[i] = min(self.cap, math.exp(fmean(values)))
        return found

    def _answer(self, rollout: Rollout) -> range | None:
        """Places in the row of the tokens inside the tag."""
        last = max((i for i, s in enumerate(rollout.spans) if s.author == "policy"), default=None)
        if last is None:
            return None
        span = rollout.spans[last]
        try:
            field = answer_field(span.message, self.tag, require_tag=True)
        except Unparsable:
            return None
        decode = self._renderer.tokenizer.decode
        places = character_spans(span.tokens, lambda ids: decode(list(ids)))
        inside = token_range(places, field.start, field.end)
        before = sum(len(rollout.spans[i].tokens) for i in rollout.path(span.parent))
        return range(before + inside.start, before + inside.stop) if len(inside) else None

    @staticmethod
    def _tokens(rollout: Rollout) -> list[int]:
        return [t for i in rollout.path(_tip(rollout)) for t in rollout.spans[i].tokens]

    @staticmethod
    def _inputs(rollout: Rollout) -> dict[str, Any]:
        found = [rollout.spans[i].inputs for i in rollout.path(_tip(rollout))]
        return next((inputs for inputs in found if inputs), {})

    def _sum(self, scores: dict[str, Score], bonus: float, likely: float | None) -> Score:
        if (lost := unscored(scores)) is not None:
            return lost
        score = combined(sum(s.value or 0.0 for s in scores.values()) + bonus, scores)
        score.parts |= {"bonus": bonus, "likelihood": likely}
        return score


def _tip(rollout: Rollout) -> int:
    return max(i for i, span in enumerate(rollout.spans) if span.author == "policy")
