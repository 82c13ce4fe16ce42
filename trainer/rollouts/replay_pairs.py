"""Recorded answers of which one is preferred: the training data of reward models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from trainer.errors import DataError
from trainer.rollouts.base import Agent, Finished, Session, unheard
from trainer.types import Group

if TYPE_CHECKING:
    from trainer.engines.base import Engine, Sampling
    from trainer.renderer import Renderer
    from trainer.types import Prompt


class ReplayPairs(Agent):
    """A group of the answers in `columns`, best first, each plus the end of turn, as if the policy
    had written them; `Rollout.meta["recorded"]` is n - 1 for the best of n, ..., 0 for the worst
    (reward `recorded`).

    `rollouts.group_size` must be their number. A column holds text, or a list of chat messages of
    which the last is the answer. Raises DataError, with the row, for anything else.
    """

    samples: ClassVar[bool] = False

    columns: tuple[str, ...] = Field(("chosen", "rejected"), min_length=2)

    @model_validator(mode="after")
    def _different(self) -> ReplayPairs:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"columns: {self.columns} name one column twice")
        return self

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
        if group_size != len(self.columns):
            raise DataError(
                f"rollouts.group_size: {group_size}, but rollouts.agent.columns names "
                f"{len(self.columns)} answers; set it to {len(self.columns)}"
            )
        rendered = renderer.render(prompt.messages, name=prompt.id)
        rollouts = []
        for member, column in enumerate(self.columns):
            session = Session.start(
                prompt, engine, renderer, sampling, seed=seed, member=member, rendered=rendered
            )
            text = _answer(prompt, column)
            tokens = [*renderer.encode(text), renderer.stop_ids[0]]
            session.rollout.meta["recorded"] = float(group_size - 1 - member)
            session.replay(text, tokens)
            rollouts.append(session.rollout)
        return Group(prompt, rollouts)


def _answer(prompt: Prompt, column: str) -> str:
    found = prompt.meta.get(column)
    if isinstance(found, list | tuple) and found and isinstance(found[-1], dict):
        found = found[-1].get("content")
    if not isinstance(found, str) or not found:
        raise DataError(
            f"{prompt.origin or f'prompt {prompt.id!r}'}: column {column!r} "
            f"(rollouts.agent.columns) holds {found!r}, it must be a text, or messages that end "
            f"with one; columns here: {', '.join(sorted(prompt.meta))}"
        )
    return found
