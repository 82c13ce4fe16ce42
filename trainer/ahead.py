"""Scores of answers that are finished while others of their group are still being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from trainer.types import Group, Prompt, Rollout, Score

if TYPE_CHECKING:
    from trainer.rewards.base import Reward
    from trainer.scoring import Scorer


class Ahead:
    """Scores the answers of one group as they come.

    `finished` is for the agent. What needs an answer and its prompt alone (`Reward.alone`) is
    scored at once, with all that finished in the same moment; the rest of the reward, and what
    combines it, once the group is whole: `score`. All of it is of one step, that of the first.
    """

    def __init__(
        self,
        scorer: Scorer,
        prompt: Prompt,
        step: Callable[[], int],
        reward: Reward | None,
        *,
        log: bool,
    ):
        self._scorer, self._prompt, self._reward, self._log = scorer, prompt, reward, log
        self._alone = (reward or scorer.reward).alone(prompt)
        self._now, self._step = step, None
        self._new: list[Rollout] = []
        self._groups: list[Group] = []  # kept: the keys below are ids
        self._made: dict[tuple[int, int], tuple[asyncio.Task[list[Score]], int]] = {}
        """By reward and rollout: the task that scores it, and its place there."""
        self._tasks: list[asyncio.Task[list[Score]]] = []

    @property
    def step(self) -> int:
        if self._step is None:
            self._step = self._now()
        return self._step

    def finished(self, rollout: Rollout) -> None:
        """Nothing is added to it any more."""
        if not self._alone or rollout.status.unplayed:
            return
        if not self._new:
            asyncio.get_running_loop().call_soon(self._start)
        self._new.append(rollout)

    async def score(self, group: Group) -> list[Score]:
        """As `Scorer.score_group`."""
        self._new.clear()
        return await self._scorer.score_group(
            group, self.step, reward=self._reward, log=self._log, ahead=self
        )

    async def take(self, reward: Reward, group: Group) -> dict[int, Score]:
        """The scores that are made or on the way, by place in the group; each is given once."""
        if group.prompt is not self._prompt:
            return {}
        taken = {}
        for place, rollout in enumerate(group.rollouts):
            if (entry := self._made.pop((id(reward), id(rollout)), None)) is not None:
                taken[place] = entry
        return {place: (await asyncio.shield(task))[at] for place, (task, at) in taken.items()}

    def _start(self) -> None:
        if not self._new:
            return
        group, self._new = Group(self._prompt, self._new), []
        self._groups.append(group)
        for reward in self._alone:
            work = self._scorer.border(reward, group, self.step, log=self._log)
            task = asyncio.create_task(work)
            self._tasks.append(task)
            for place, rollout in enumerate(group.rollouts):
                self._made[id(reward), id(rollout)] = task, place

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def scoring_ahead(
    scorer: Scorer,
    prompt: Prompt,
    step: Callable[[], int],
    *,
    reward: Reward | None = None,
    log: bool = True,
) -> AsyncIterator[Ahead]:
    """Ends what nobody waits for any more. Arguments as of `Scorer.score_group`; `step` is asked
    when the first score begins."""
    ahead = Ahead(scorer, prompt, step, reward, log=log)
    try:
        yield ahead
    finally:
        await ahead.close()
