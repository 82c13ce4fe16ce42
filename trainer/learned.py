"""A reward whose own model learns beside the policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from trainer.errors import ConfigError, MissingService
from trainer.learning import Beside, Optimizer
from trainer.losses.base import Loss
from trainer.models.base import Model
from trainer.policies.base import Policy
from trainer.rewards.base import Reward

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.renderer import Renderer


class LearnedReward(Reward):
    """A reward whose value head learns beside the policy. Subclasses say what it reads and what it
    learns, in token ids of `renderer`: `values` and `fit`. Calls wait for each other."""

    model: Model | None = None
    """Start weights; None: the policy's. A head that was trained before comes with them."""
    policy: Policy | None = None
    """How it is run; None: the recipe's policy settings. Its `head` is always the value head."""
    learner: Optimizer = Optimizer(lr=1e-5)

    _trainee: Any = PrivateAttr(None)
    _renderer: Any = PrivateAttr(None)
    _context: Any = PrivateAttr(None)
    _turn: Any = PrivateAttr(None)

    @property
    def learns_by(self) -> Loss:
        """On the values after the last token of each row, with the labels as returns."""
        raise NotImplementedError

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    def beside(self) -> tuple[Beside, ...]:
        return (Beside(self.model, self.policy, self.learner, passes=1),)

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        settings, model = self.policy or context.policy, self.model or context.model
        if settings is None or context.trainees is None:
            raise ConfigError(f"{self.name()}: only a run of a recipe can open it")
        own = settings.model_copy(update={"head": "value", "value_at": "after"})
        self._renderer = context.renderer if self.model is None else model.renderer()
        async with own.open(replace(context, model=model, renderer=self._renderer)):
            self._trainee = context.trainees(own, self.learns_by, self.learner)
            self._context, self._turn = context, asyncio.Lock()
            try:
                yield
            finally:
                self._trainee = self._context = self._turn = None

    async def values(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """After the last token of each row; of this process alone."""
        from trainer.ops.answers import answer_batch

        if self._trainee is None:
            raise MissingService(f"{self.name()} needs a run that opens its model")
        if not rows:
            return []
        batch = answer_batch(rows, [0.0] * len(rows), [0] * len(rows))
        async with self._turn:
            seen = await asyncio.to_thread(self._trainee.evaluate, batch)
        return seen.values.sum(-1).double().tolist()

    async def fit(
        self,
        rows: Sequence[Sequence[int]],
        labels: Sequence[float],
        groups: Sequence[int],
        step: int,
    ) -> dict[str, float]:
        """One update, by all processes together; {} where none of them has a row. `groups`: places
        of the groups on this process."""
        from trainer.ops.answers import answer_batch

        async with self._turn:
            counts = await asyncio.to_thread(self._context.gather, len(rows))
            if not sum(counts):
                return {}
            batch = answer_batch(rows, labels, groups)
            return await asyncio.to_thread(self._trainee.update, batch, step)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._trainee is None else {"model": self._trainee.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._trainee is not None:
            self._trainee.load_state_dict(state["model"])
