"""Any agent, plus one greedy answer per prompt as a baseline (ReMax, arXiv:2310.10505)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from trainer.rollouts.base import Agent, Finished, unheard
from trainer.types import Group

if TYPE_CHECKING:
    from trainer.engines.base import Engine, Sampling
    from trainer.renderer import Renderer
    from trainer.types import Prompt


class GreedyBaseline(Agent):
    """The group that `agent` plays, and beside it one rollout of the same agent at temperature 0
    as `Group.baseline`.

    The greedy answer is scored by itself and never trained on; filters, group statistics and logs
    do not count it. Advantages find its return as the part `greedy`, NaN where it could not be
    scored. It costs one more answer per prompt.
    """

    gives_baseline: ClassVar[bool] = True

    agent: Agent = Field("single_turn", validate_default=True)
    """Who plays."""

    @model_validator(mode="after")
    def _samples_itself(self) -> GreedyBaseline:
        if not self.agent.samples:
            raise ValueError(
                f"agent: {self.agent.name()} replays answers and has no greedy one: take an agent "
                "that samples, for instance single_turn"
            )
        return self

    @property
    def evaluated(self) -> Agent:
        return self.agent.evaluated

    async def play(
        self,
        prompt: Prompt,
        engine: Engine,
        renderer: Renderer,
        sampling: Sampling,
        *,
        group_size: int,
        seed: int,
        finished: Finished = unheard,
    ) -> Group:
        greedy = sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0, "top_k": 0})
        group, alone = await asyncio.gather(
            self.agent.play(
                prompt,
                engine,
                renderer,
                sampling,
                group_size=group_size,
                seed=seed,
                finished=finished,
            ),
            self.agent.play(prompt, engine, renderer, greedy, group_size=1, seed=seed),
        )
        return Group(prompt, group.rollouts, baseline=alone.rollouts[0])
