"""Chooses a reward by the row's `task`."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Prompt, Score, ScoreStatus


class Route(CompositeReward):
    """value = tasks[prompt.task], or `default`, or None ("does not apply") without either.

    Parts: the chosen reward under the task's name, so that each task has its own curve.
    """

    pointwise = True

    tasks: dict[str, Reward] = Field(min_length=1)
    """`{task: reward}`."""
    default: Reward | None = None
    """For tasks that are not listed, and rows without one."""

    def children(self) -> dict[str, Reward]:
        return self.tasks | ({"default": self.default} if self.default else {})

    @property
    def needs(self) -> frozenset[str]:
        inner = super().needs
        return inner if self.default else inner | {"task"}

    def alone(self, prompt: Prompt) -> list[Reward]:
        chosen = self._chosen(prompt)
        return [] if chosen is None else self.or_inside([chosen], prompt)

    def _chosen(self, prompt: Prompt) -> Reward | None:
        return self.tasks.get(prompt.task or "", self.default)

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        task = group.prompt.task
        name = task if task in self.tasks else "default"
        chosen = self._chosen(group.prompt)
        if chosen is None:
            reason = f"no reward for task {task!r}; route has {', '.join(self.tasks)}"
            return [Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason) for _ in group.rollouts]
        scores = await ctx.score(chosen, group)
        return [replace(s, parts=named_parts(name, s)) for s in scores]
