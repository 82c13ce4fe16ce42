"""Recorded answers that the data holds step by step: the training data of process reward models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.errors import DataError
from trainer.ops.steps import token_ends
from trainer.rollouts.base import Agent, Finished, Session, unheard
from trainer.types import Group

if TYPE_CHECKING:
    from trainer.engines.base import Engine, Sampling
    from trainer.renderer import Renderer
    from trainer.types import Prompt


class ReplaySteps(Agent):
    """Plays the steps of a data column, joined by `separator`, plus the end of turn, as if the
    policy had written them, and records where each ends: `Rollout.meta["step_ends"]`.

    A step ends with the token that ends its separator, the last one with the end of turn. Every
    member of a group plays the same, so `rollouts.group_size` is usually 1. Raises DataError, with
    the row, for a column that is not a list of texts.
    """

    samples: ClassVar[bool] = False

    column: str = Field("completions", min_length=1)
    """Data column with the list of steps."""
    separator: str = Field("\n\n", min_length=1)

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
        steps = self._steps(prompt)
        text = self.separator.join(steps)
        tokens = [*renderer.encode(text), renderer.stop_ids[0]]
        whole = token_ends(tokens, renderer.decode)
        ends, written = [], 0
        for step in steps[:-1]:
            written += len(step) + len(self.separator)
            ends.append(next(at for at, end in enumerate(whole) if end >= written))
        ends.append(len(tokens) - 1)
        rendered = renderer.render(prompt.messages, name=prompt.id)
        rollouts = []
        for member in range(group_size):
            session = Session.start(
                prompt, engine, renderer, sampling, seed=seed, member=member, rendered=rendered
            )
            session.rollout.meta["step_ends"] = list(ends)
            session.replay(text, tokens)
            rollouts.append(session.rollout)
        return Group(prompt, rollouts)

    def _steps(self, prompt: Prompt) -> list[str]:
        found = prompt.meta.get(self.column)
        listed = list(found) if isinstance(found, list | tuple) else []
        texts = [step for step in listed if isinstance(step, str)]
        if not texts or len(texts) != len(listed):
            raise DataError(
                f"{prompt.origin or f'prompt {prompt.id!r}'}: column {self.column!r} "
                f"(rollouts.agent.column) holds {found!r}, it must be a list of texts, one per "
                f"step; columns here: {', '.join(sorted(prompt.meta))}"
            )
        stripped = [text.strip("\n") for text in texts]  # line ends belong to the separator
        if not all(text.strip() for text in stripped):
            raise DataError(
                f"{prompt.origin or f'prompt {prompt.id!r}'}: column {self.column!r} "
                "(rollouts.agent.column) has an empty step; take it out, and its label"
            )
        return stripped
