"""A reward model for whole answers: one number after the last token."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from trainer.errors import MissingService
from trainer.models.base import Model
from trainer.ops.asking import ServerFault
from trainer.ops.classify import Classifier, ClassifyServer
from trainer.ops.rubric import shown
from trainer.policies.base import Policy
from trainer.rewards.base import Reward, RewardContext
from trainer.rollouts.base import path_inputs
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus, Status
from trainer.value_model import Asked, ValueModel

if TYPE_CHECKING:
    from trainer.context import Context


_IMAGES = (
    "a server is sent tokens or a conversation, and the tokens of a rollout have images in them; "
    "set reads: text"
)


class RewardModel(Reward):
    """value = v after the last token that the policy wrote, of the last leaf of the rollout
    (InstructGPT, arXiv:2203.02155).

    A rollout without any token of the policy does not apply (None). `model` is what a stage with
    `loss: bradley_terry` exported, or a transformers checkpoint for sequence classification, frozen
    beside the policy: all answers of a prompt go through it together, their common beginning once.
    `server` asks a vLLM instead, which serves such a checkpoint. A server that does not answer is a
    fault of that rollout, and its time does not count against `scoring.deadline`.
    """

    model: Model | None = None
    server: ClassifyServer | None = None
    """A vLLM that serves the model: `{start: {model: Skywork/Skywork-Reward-V2-Llama-3.1-8B}}`, or
    `{urls: [http://host:8000], model: name}`."""
    policy: Policy = Field("causal_lm", validate_default=True)
    """How to run `model`: dtype, packing. Its `head` is always the value head."""
    unit: Literal["value", "probability"] = "value"
    """v, or its sigmoid."""
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    offset: float = Field(0.0, allow_inf_nan=False)
    """v becomes scale * (v - offset) first: to centre a model that pairs alone have trained."""
    truncated: float | None = Field(None, allow_inf_nan=False)
    """Value of an answer that was cut off; None: what the model says of it."""
    reads: Literal["rollout", "text"] = "rollout"
    """`rollout`: the model reads the very tokens of the rollout; it needs the policy's tokenizer
    and chat template. `text`: the conversation in the model's own template and tokens,
    with the images of the prompt."""
    token_budget: int = Field(16384, gt=0)
    """Packed tokens per forward pass of `model`: memory only."""

    _live: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_source(self) -> RewardModel:
        if (self.model is None) == (self.server is None):
            raise ValueError("give one of: model (beside the policy), server (a vLLM)")
        return self

    def ready(self) -> None:
        if self.server is not None:
            self.server.ready()

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        async with self._served(context) if self.server else self._loaded(context) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    @asynccontextmanager
    async def _served(self, context: Context) -> AsyncIterator[Classifier]:
        assert self.server is not None
        async with self.server.open(context) as judge:
            if self.reads == "rollout":
                await judge.refuse_other_tokens(context.renderer)
            yield judge

    @asynccontextmanager
    async def _loaded(self, context: Context) -> AsyncIterator[ValueModel]:
        from trainer.value_model import open_value_model, refuse_other_tokens

        assert self.model is not None
        async with open_value_model(self.policy, self.model, context, self.token_budget) as judge:
            if self.reads == "rollout":
                refuse_other_tokens(judge.renderer, context.renderer)
            yield judge

    def alone(self, prompt: Prompt) -> list[Reward]:
        return [self] if self.server is not None else []  # beside the policy: a group in one pass

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if self._live is None:
            raise MissingService(
                f"{self.name()} judges with a model, which only a run or an evaluation opens"
            )
        if self.server is not None:
            with ctx.waiting():
                asking = (self._ask(self._live, group, rollout) for rollout in group.rollouts)
                return await asyncio.gather(*asking)
        asked = [self._asked(group, rollout) for rollout in group.rollouts]
        found = await self._live.values(asked)
        return [
            self._score(rollout, values)
            for rollout, values in zip(group.rollouts, found, strict=True)
        ]

    async def _ask(self, judge: Classifier, group: Group, rollout: Rollout) -> Score:
        """What the server says of one rollout."""
        try:
            if self.reads == "text":
                said = _said(rollout)
                asked = [m | {"content": shown(m["content"])} for m in group.prompt.messages]
                value = [await judge.of_messages([*asked, *said])] if said else []
                return self._score(rollout, value)
            asked = self._asked(group, rollout)
            if asked.inputs:
                return Score.fault(ScoreStatus.RAISED, _IMAGES)
            upto = asked.tokens[: asked.places[-1] + 1] if asked.places else []
            return self._score(rollout, [await judge.of_tokens(upto)] if upto else [])
        except ServerFault as fault:
            return Score.fault(fault.status, str(fault))

    def _asked(self, group: Group, rollout: Rollout) -> Asked:
        path = rollout.path(rollout.leaves()[-1])
        if self.reads == "text":
            return self._as_text(group, rollout)
        tokens: list[int] = []
        last: list[int] = []
        for index in path:
            span = rollout.spans[index]
            own = [at for at, sampled in enumerate(span.sampled) if sampled]
            last = [len(tokens) + own[-1]] if own else last
            tokens += span.tokens
        return Asked(tokens, last, path_inputs(rollout, path[-1]))

    def _as_text(self, group: Group, rollout: Rollout) -> Asked:
        said = _said(rollout)
        if not said:
            return Asked([], [], {})
        rendered = self._live.renderer.render((*group.prompt.messages, *said), generate=False)
        return Asked(rendered.tokens, [len(rendered.tokens) - 1], rendered.inputs)

    def _score(self, rollout: Rollout, values: list[float]) -> Score:
        if self.truncated is not None and rollout.status is Status.TRUNCATED:
            return Score(value=self.truncated)
        if not values:
            return Score(value=None)
        value = self.scale * (values[0] - self.offset)
        return Score(value=value if self.unit == "value" else (1 + math.tanh(value / 2)) / 2)


def _said(rollout: Rollout) -> list[dict[str, Any]]:
    """What was written after the prompt, on the way to the last leaf."""
    spans = [rollout.spans[i] for i in rollout.path(rollout.leaves()[-1])]
    return [{"role": s.role, "content": s.message} for s in spans if s.author != "data"]
