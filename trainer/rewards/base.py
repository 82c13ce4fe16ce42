"""Contract of `reward:`: a group in, one `Score` per rollout out."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trainer.plugin import Plugin
from trainer.types import Group, Prompt, Rollout, Score

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.types import Batch


class RewardContext(Protocol):
    """What a reward may ask for while it scores one group.

    `score` is the border where faults become data: it applies the deadline, catches whatever the
    child does, checks length and finiteness, and always returns one `Score` per rollout. Rewards
    that combine others call it, never `child.score` directly.
    """

    step: int
    total_steps: int
    rng: random.Random
    """Seeded by (run seed, serial): the same on every attempt."""

    async def score(self, reward: Reward, group: Group) -> list[Score]: ...

    async def isolate(self, reward: PointwiseReward, group: Group) -> list[Score]:
        """Grades each rollout in a worker process that is killed at the deadline."""
        ...

    async def logprobs(
        self, rows: list[tuple[list[int], dict[str, Any]]], model: str = "policy"
    ) -> list[list[float]]:
        """Teacher-forced log-probs, [n - 1] per row of (tokens, inputs). `model`: policy."""
        ...

    async def continue_(self, tokens: list[int], inputs: dict[str, Any], **sampling: Any) -> str:
        """Samples a continuation of any prefix and returns its text."""
        ...


class Reward(Plugin):
    family: ClassVar[str] = "trainer.rewards"
    needs: ClassVar[frozenset[str]] = frozenset()
    """What must be there: data columns (`answer`, `meta.box`) and services (`engine`, `judge`,
    `images`). A property where it depends on the fields."""

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        """For rewards with something live; entered and left once by `Run`."""
        yield

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        """One score per rollout, in order."""
        raise NotImplementedError

    async def learn(self, groups: list[Group], batch: Batch) -> dict[str, float]:
        """For co-trained rewards: called once a step with what was trained on."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State that decides the next score; saved in checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undoes `state_dict`."""


class PointwiseReward(Reward):
    """Grades one rollout at a time, with plain synchronous Python.

    Subclasses write `grade` only. It runs in a worker process, never on the event loop: it may
    raise, hang or exit, and the run goes on.
    """

    def grade(self, rollout: Rollout, prompt: Prompt) -> float | bool | None | Score:
        """A number, or None for "does not apply", or a whole `Score`.

        `rollout.reply` is the last answer's text, `prompt.answer` the gold one, `prompt.meta` the
        data row. Token tensors and images are left out unless `images` is in `needs`.
        """
        raise NotImplementedError

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return await ctx.isolate(self, group)
