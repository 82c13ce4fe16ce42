"""Scores answers by the log-ratio of two language models: a trained implicit reward model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from trainer.errors import ConfigError, MissingService
from trainer.learning import Beside
from trainer.models.base import Model
from trainer.ops.best_of import Reduce
from trainer.ops.steps import Splitter
from trainer.policies.base import Policy
from trainer.rewards.base import Reward, RewardContext
from trainer.types import Group, Rollout, Score, ScoreStatus

if TYPE_CHECKING:
    from trainer.context import Context


class ImplicitScore(Reward):
    """value = `over` the steps' rewards, that of a step scale times the sum of log phi - log ref
    over its tokens ("Free Process Rewards without Process Labels", arXiv:2412.01981).

    phi is the exported model of recipe `implicit_prm`, or another with the policy's tokenizer. It
    is not trained. For `evaluation.best_of`, or as a reward. Parts: `steps` (how many), `total`
    (scale times the sum over the answer). An answer without any step does not apply.
    """

    model: Model
    """phi."""
    reference: Model | Literal["none"] | None = None
    """pi_ref: what phi was trained from; null: the run's model; `none`: 0 (for a phi that was
    tuned strongly)."""
    policy: Policy | None = None
    """How the two are run; null: the recipe's policy settings."""
    scale: float = Field(0.001, gt=0)
    """The paper's when it scores: it decides the weights of a vote, not the best of N."""
    over: Reduce = "min"
    accumulate: bool = False
    """The reward of a step is that of the answer up to its end."""
    splitter: Splitter = Splitter(by="line")
    r"""The paper's steps: `{by: regex, pattern: '\n+(?=Step \d+:)'}`."""

    _models: Any = PrivateAttr(None)
    _renderer: Any = PrivateAttr(None)
    _turn: Any = PrivateAttr(None)

    def beside(self) -> tuple[Beside, ...]:
        models = [self.model] if self.reference == "none" else [self.model, self._from]
        return tuple(Beside(one, self.policy, None, passes=1) for one in models)

    @property
    def _from(self) -> Model | None:
        return None if self.reference == "none" else self.reference

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        settings = self.policy or context.policy
        if settings is None:
            raise ConfigError("model/implicit_score: only a run of a recipe can open it")
        bare = {"head": "lm", "value_at": "before", "lora": None}
        wanted = [self.model]
        if self.reference != "none":
            wanted.append(self._from or context.model)
        vocabulary = context.renderer.tokenizer.get_vocab()
        async with AsyncExitStack() as stack:
            models = []
            for model in wanted:
                if model.renderer().tokenizer.get_vocab() != vocabulary:
                    raise ConfigError(f"{model.name()} has another tokenizer than the run's model")
                policy = settings.model_copy(update=bare)
                await stack.enter_async_context(policy.open(replace(context, model=model)))
                policy.module.requires_grad_(False)
                models.append(policy)
            self._models, self._renderer, self._turn = models, context.renderer, asyncio.Lock()
            try:
                yield
            finally:
                self._models = self._renderer = self._turn = None

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if self._models is None:
            raise MissingService("model/implicit_score needs a run that opens its models")
        async with self._turn:
            return await asyncio.to_thread(lambda: [self._score(r) for r in group.rollouts])

    def _score(self, rollout: Rollout) -> Score:
        from trainer.ops.best_of import reduced, step_rewards

        tokens, own, inputs, ends = self._row(rollout)
        if not ends:
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason="the answer has no step")
        phi, *reference = (model.probe([(tokens, inputs)])[0] for model in self._models)
        ratios = [phi[at - 1] - sum(ref[at - 1] for ref in reference) for at in own]
        steps = step_rewards(ratios, ends, self.scale, accumulate=self.accumulate)
        total = self.scale * sum(ratios)
        parts: dict[str, float | None] = {"steps": float(len(steps)), "total": total}
        return Score(reduced(steps, self.over), parts=parts)

    def _row(self, rollout: Rollout) -> tuple[list[int], list[int], dict[str, Any], list[int]]:
        """Tokens of the first path, places of the sampled ones, inputs, and the ends of the steps
        as places among the sampled ones."""
        tokens: list[int] = []
        own: list[int] = []
        ends: list[int] = []
        inputs: dict[str, Any] = {}
        for index in rollout.path(rollout.leaves()[0]):
            span = rollout.spans[index]
            inputs |= span.inputs
            if any(span.sampled):
                steps = self.splitter.steps(span.tokens, self._renderer.decode)
                ends += [len(own) + sum(span.sampled[: s.end + 1]) - 1 for s in steps]
            own += [len(tokens) + at for at, mine in enumerate(span.sampled) if mine]
            tokens += span.tokens
        return tokens, own, inputs, ends
