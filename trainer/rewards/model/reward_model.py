"""A reward model for whole answers: one number after the last token."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from trainer.errors import MissingService
from trainer.models.base import Model
from trainer.policies.base import Policy
from trainer.rewards.base import Reward, RewardContext
from trainer.rollouts.base import path_inputs
from trainer.types import Group, Rollout, Score, Status
from trainer.value_model import Asked

if TYPE_CHECKING:
    from trainer.context import Context


class RewardModel(Reward):
    """value = v after the last token that the policy wrote, of the last leaf of the rollout
    (InstructGPT, arXiv:2203.02155).

    All answers of a prompt go through the model together, their common beginning once. A rollout
    without any token of the policy does not apply (None). `model` is what a stage with `loss:
    bradley_terry` exported, or a transformers checkpoint for sequence classification; it is frozen.
    """

    model: Model
    policy: Policy = Field("causal_lm", validate_default=True)
    """How to run it: dtype, packing. Its `head` is always the value head."""
    unit: Literal["value", "probability"] = "value"
    """v, or its sigmoid."""
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    offset: float = Field(0.0, allow_inf_nan=False)
    """v becomes scale * (v - offset) first: to centre a model that pairs alone have trained."""
    truncated: float | None = Field(None, allow_inf_nan=False)
    """Value of an answer that was cut off; None: what the model says of it."""
    reads: Literal["rollout", "text"] = "rollout"
    """`rollout`: the model reads the very tokens of the rollout; it needs the policy's tokenizer
    and chat template. `text`: the conversation in the model's own template and tokens."""
    token_budget: int = Field(16384, gt=0)
    """Packed tokens per forward pass: memory only."""

    _live: Any = PrivateAttr(None)

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        from trainer.value_model import open_value_model, refuse_other_tokens

        async with open_value_model(self.policy, self.model, context, self.token_budget) as judge:
            if self.reads == "rollout":
                refuse_other_tokens(judge.renderer, context.renderer)
            self._live = judge
            try:
                yield
            finally:
                self._live = None

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if self._live is None:
            raise MissingService(
                f"{self.name()} judges with a model, which only a run or an evaluation opens"
            )
        asked = [self._asked(group, rollout) for rollout in group.rollouts]
        found = await self._live.values(asked)
        return [
            self._score(rollout, values)
            for rollout, values in zip(group.rollouts, found, strict=True)
        ]

    def _asked(self, group: Group, rollout: Rollout) -> Asked:
        path = rollout.path(rollout.leaves()[-1])
        if self.reads == "text":
            return self._as_text(group, rollout, path)
        tokens: list[int] = []
        last: list[int] = []
        for index in path:
            span = rollout.spans[index]
            own = [at for at, sampled in enumerate(span.sampled) if sampled]
            last = [len(tokens) + own[-1]] if own else last
            tokens += span.tokens
        return Asked(tokens, last, path_inputs(rollout, path[-1]))

    def _as_text(self, group: Group, rollout: Rollout, path: list[int]) -> Asked:
        turns = [
            {"role": rollout.spans[i].role, "content": rollout.spans[i].message}
            for i in path
            if rollout.spans[i].author != "data"
        ]
        if not turns:
            return Asked([], [], {})
        rendered = self._live.renderer.render((*group.prompt.messages, *turns), generate=False)
        return Asked(rendered.tokens, [len(rendered.tokens) - 1], rendered.inputs)

    def _score(self, rollout: Rollout, values: list[float]) -> Score:
        if self.truncated is not None and rollout.status is Status.TRUNCATED:
            return Score(value=self.truncated)
        if not values:
            return Score(value=None)
        value = self.scale * (values[0] - self.offset)
        return Score(value=value if self.unit == "value" else (1 + math.tanh(value / 2)) / 2)
