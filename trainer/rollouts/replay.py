"""Recorded answers instead of sampled ones: supervised fine-tuning is this agent and loss `nll`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.errors import DataError
from trainer.rollouts.base import Agent, Session
from trainer.types import Group, Span

if TYPE_CHECKING:
    from trainer.engines.base import Engine, Sampling
    from trainer.renderer import Renderer
    from trainer.types import Prompt


class Replay(Agent):
    """Plays the text of a data column, plus the end of turn, as if the policy had written it.

    Every member of a group plays the same text, so `rollouts.group_size` is usually 1.
    """

    samples: ClassVar[bool] = False

    column: str = "demonstration"
    """Data column with the assistant's answer."""

    async def play(
        self,
        prompt: Prompt,
        engine: Engine,
        renderer: Renderer,
        sampling: Sampling,
        *,
        group_size: int,
        seed: int,
    ) -> Group:
        text = prompt.meta.get(self.column)
        if not isinstance(text, str) or not text:
            raise DataError(
                f"prompt {prompt.id!r}: rollouts.agent.column: {self.column!r} holds {text!r}, "
                f"replay needs a text; columns here: {', '.join(sorted(prompt.meta))}"
            )
        rendered = renderer.render(prompt.messages, name=prompt.id)
        tokens = [*renderer.encode(text), renderer.stop_ids[0]]
        rollouts = []
        for member in range(group_size):
            session = Session.start(
                prompt, engine, renderer, sampling, seed=seed, member=member, rendered=rendered
            )
            session.rollout.spans.append(
                Span(
                    parent=session.tip,
                    role="assistant",
                    author="policy",
                    message=text,
                    tokens=list(tokens),
                    sampled=[True] * len(tokens),
                    logprobs=[0.0] * len(tokens),
                    version=[-1] * len(tokens),
                )
            )
            rollouts.append(session.rollout)
        return Group(prompt, rollouts)
