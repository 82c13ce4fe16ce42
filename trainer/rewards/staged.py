"""Chooses a reward by the step."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from trainer.ops.ramp import at_step
from trainer.plugin import Frozen
from trainer.rewards.base import CompositeReward, Reward, RewardContext, named_parts
from trainer.types import Group, Prompt, Score


class Phase(Frozen):
    reward: Reward
    start: int | float = Field(0, ge=0)
    """First step of the phase; a fraction such as 0.5 is a share of all steps."""


class Staged(CompositeReward):
    """value = that of the phase with the latest start that is not after the step: rules that get
    stricter, or a curriculum of rewards within one run. Parts: the phase's reward by its name."""

    pointwise = True

    phases: dict[str, Phase] = Field(min_length=1)
    """`{easy: {reward: ...}, hard: {start: 1500, reward: ...}}`; one starts at 0."""

    @model_validator(mode="after")
    def _begins(self) -> Staged:
        if all(phase.start for phase in self.phases.values()):
            raise ValueError("phases: one of them must start at 0")
        return self

    def children(self) -> dict[str, Reward]:
        return {name: phase.reward for name, phase in self.phases.items()}

    def alone(self, prompt: Prompt) -> list[Reward]:
        whole = super().alone(prompt)
        return whole if whole == [self] else []  # the step that decides is not known here

    def phase(self, step: int, total: int) -> str:
        """Name of the phase of a step; of equal starts the later entry."""
        begun = [
            (at_step(phase.start, total), i, name)
            for i, (name, phase) in enumerate(self.phases.items())
            if at_step(phase.start, total) <= step
        ]
        return max(begun)[2]

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        name = self.phase(ctx.step, ctx.total_steps)
        scores = await ctx.score(self.phases[name].reward, group)
        return [replace(s, parts=named_parts(name, s)) for s in scores]
