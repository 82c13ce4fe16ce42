"""The chance of success after each step, by finishing the answer several times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import Field, PrivateAttr

from trainer.ops.steps import Splitter, Step, cut_after, policy_spans
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.rollouts.base import path_inputs
from trainer.types import Group, Rollout, Score

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.renderer import Renderer


class MonteCarlo(CompositeReward):
    """value = reward of the answer; step score q_h = mean reward of `samples` answers that go on
    from step h, sampled by the current policy.

    The last step's q is the value itself. Only the last turn is split. Part `start` is the mean
    value of the group: an estimate of the chance before the first step, with no further samples.
    A step none of whose continuations could be scored is no step. Costs group size x steps x
    samples answers per prompt. After Math-Shepherd (arXiv:2312.08935, soft labels) and VinePPO
    (arXiv:2410.01679).
    """

    reward: Reward
    """Judges whole answers by their text, in [0, 1] for `process/pav`."""
    splitter: Splitter = Splitter()
    samples: int = Field(4, gt=0)
    max_tokens: int = Field(256, gt=0)
    """Longest continuation."""
    temperature: float = Field(1.0, gt=0)

    _renderer: Renderer | None = PrivateAttr(None)

    @property
    def needs(self) -> frozenset[str]:
        return self.reward.needs | {"engine"}

    def children(self) -> dict[str, Reward]:
        return {"outcome": self.reward}

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._renderer = context.renderer
        async with super().open(context):
            yield

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        outcomes = await ctx.score(self.reward, group)
        values = [outcome.value for outcome in outcomes if outcome.value is not None]
        start = fmean(values) if values else None
        return await asyncio.gather(
            *(
                self._score(group, rollout, outcome, start, ctx)
                for rollout, outcome in zip(group.rollouts, outcomes, strict=True)
            )
        )

    async def _score(
        self,
        group: Group,
        rollout: Rollout,
        outcome: Score,
        start: float | None,
        ctx: RewardContext,
    ) -> Score:
        parts = named_parts("outcome", outcome) | {"start": start}
        spans = list(policy_spans(rollout))
        if outcome.value is None or not spans or self._renderer is None:
            return replace(outcome, parts=parts)
        span = spans[-1]
        steps = self.splitter.steps(rollout.spans[span].tokens, self._renderer.decode)
        chances = await self._chances(group, rollout, span, steps[:-1], ctx)
        scored = (
            [
                (step.end, chance)
                for step, chance in zip(steps, [*chances, outcome.value], strict=True)
                if chance is not None
            ]
            if steps
            else []
        )
        tokens = [0.0] * len(rollout.spans[span].tokens)
        for end, chance in scored:
            tokens[end] = chance
        return replace(
            outcome, parts=parts, tokens={span: tokens}, steps={span: [end for end, _ in scored]}
        )

    async def _chances(
        self,
        group: Group,
        rollout: Rollout,
        span: int,
        steps: Sequence[Step],
        ctx: RewardContext,
    ) -> list[float | None]:
        """q after each of these steps."""
        prefixes, so_far = [], ""
        for step in steps:
            so_far += step.text
            prefixes.append(cut_after(rollout, span, step, so_far))
        inputs = path_inputs(rollout, span)
        texts = await asyncio.gather(
            *(
                ctx.continue_(
                    [token for part in prefix.spans for token in part.tokens],
                    inputs,
                    max_tokens=self.max_tokens,
                    temperature=self.temperature,
                )
                for prefix in prefixes
                for _ in range(self.samples)
            )
        )
        ended = [
            _with_text(prefixes[number // self.samples], text) for number, text in enumerate(texts)
        ]
        values = [s.value for s in await ctx.score(self.reward, Group(group.prompt, ended))]
        found = []
        for first in range(0, len(values), self.samples):
            known = [v for v in values[first : first + self.samples] if v is not None]
            found.append(fmean(known) if known else None)
        return found


def _with_text(prefix: Rollout, text: str) -> Rollout:
    """The prefix with a continuation, as text: its token ids end with the prefix."""
    last = prefix.spans[-1]
    return replace(prefix, spans=[*prefix.spans[:-1], replace(last, message=last.message + text)])
