"""Scores every step of an answer with another reward."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PrivateAttr

from trainer.ops.steps import Splitter, Step, cut_after
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Prompt, Rollout, Score

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.renderer import Renderer


class Steps(CompositeReward):
    """value = outcome, and a token reward of coef * score(step) on the last token of each step.

    `reward` scores a group made of all steps of all rollouts, each as a rollout that was cut after
    the step. A step to which it does not apply is no step; a fault of one step is a fault of the
    rollout. Replies without token ids (recorded text) get parts only. Parts: `outcome` and its own
    parts, `step_mean`, `step_count`.
    """

    reward: Reward
    """Scores one step."""
    outcome: Reward | None = None
    """Scores the whole answer; None: the value is 0, and the steps are the return."""
    splitter: Splitter = Splitter()
    show: Literal["prefix", "step"] = "prefix"
    """What `reward` sees as the reply: the answer up to and with the step, token ids included, or
    the step's text alone, without ids."""
    coef: float = Field(1.0, allow_inf_nan=False)

    _renderer: Renderer | None = PrivateAttr(None)

    def children(self) -> dict[str, Reward]:
        inside = {"step": self.reward}
        return inside if self.outcome is None else inside | {"outcome": self.outcome}

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._renderer = context.renderer
        async with super().open(context):
            yield

    def alone(self, prompt: Prompt) -> list[Reward]:
        return [] if self.outcome is None else self.outcome.alone(prompt)  # the others see steps

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        outcomes = [Score(0.0) for _ in group.rollouts]
        if self.outcome is not None:
            outcomes = await ctx.score(self.outcome, group)
        found = [
            [] if outcome.value is None else self._steps(rollout)
            for outcome, rollout in zip(outcomes, group.rollouts, strict=True)
        ]
        asked = [shown for steps in found for _, _, shown in steps]
        scores = iter(await ctx.score(self.reward, Group(group.prompt, asked)))
        return [
            self._score(rollout, outcome, [(span, step, next(scores)) for span, step, _ in steps])
            for rollout, outcome, steps in zip(group.rollouts, outcomes, found, strict=True)
        ]

    def _steps(self, rollout: Rollout) -> list[tuple[int, Step, Rollout]]:
        """(span, step, what `reward` sees) of every step."""
        found = []
        for index, span in enumerate(rollout.spans):
            if span.author != "policy":
                continue
            if span.tokens and self._renderer is not None:
                steps = self.splitter.steps(span.tokens, self._renderer.decode)
            else:
                steps = [
                    Step(span.message[a:b], 0, -1) for a, b in self.splitter.split(span.message)
                ]
            so_far = ""
            for step in steps:
                so_far += step.text
                text = so_far if self.show == "prefix" else step.text
                shown = cut_after(rollout, index, step, text)
                if self.show == "step":
                    last = shown.spans[-1]
                    last.tokens, last.sampled, last.logprobs, last.version = [], [], [], []
                found.append((index, step, shown))
        return found

    def _score(
        self, rollout: Rollout, outcome: Score, steps: list[tuple[int, Step, Score]]
    ) -> Score:
        parts = {} if self.outcome is None else named_parts("outcome", outcome)
        for number, (_, _, score) in enumerate(steps):
            if score.status.is_fault:
                reason = f"step {number}: {score.reason}"
                return Score(parts=parts, status=score.status, reason=reason)
        scored = [(span, step, s.value) for span, step, s in steps if s.value is not None]
        parts |= {
            "step_mean": fmean(value for _, _, value in scored) if scored else None,
            "step_count": float(len(scored)),
        }
        total = Score(
            outcome.value,
            dict(outcome.spans),
            {index: list(values) for index, values in outcome.tokens.items()},
            parts,
            outcome.status,
            outcome.reason,
        )
        for index, step, value in scored:
            if step.end < 0:
                continue
            zeros = [0.0] * len(rollout.spans[index].tokens)
            total.tokens.setdefault(index, zeros)[step.end] += self.coef * value
            total.steps.setdefault(index, []).append(step.end)
        return total
