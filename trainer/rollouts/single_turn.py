"""One question, one answer: every member of the group samples a single reply."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from trainer.rollouts.base import Agent, Finished, Session, unheard
from trainer.types import Group

if TYPE_CHECKING:
    from trainer.engines.base import Engine, Sampling
    from trainer.renderer import Renderer
    from trainer.types import Prompt


class SingleTurn(Agent):
    """Members go out as separate requests, and are scored as they come back; the engine shares the
    prompt's prefill."""

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
        rendered = renderer.render(prompt.messages, name=prompt.id)
        sessions = [
            Session.start(
                prompt, engine, renderer, sampling, seed=seed, member=member, rendered=rendered
            )
            for member in range(group_size)
        ]

        async def play(session: Session) -> None:
            await session.sample()
            finished(session.rollout)

        await asyncio.gather(*map(play, sessions))
        return Group(prompt, [session.rollout for session in sessions])
