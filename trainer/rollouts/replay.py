"""Recorded answers instead of sampled ones: supervised fine-tuning is this agent and loss `nll`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainer.errors import DataError
from trainer.rollouts.base import Agent, Finished, Session, unheard
from trainer.types import Group

if TYPE_CHECKING:
    from trainer.engines.base import Engine, Sampling
    from trainer.renderer import Renderer
    from trainer.types import Prompt


class Replay(Agent):
    """Plays the text of a data column, plus the end of turn, as if the policy had written it.

    Every member of a group plays the same text, so `rollouts.group_size` is usually 1. Where the
    column holds a list, member i plays its i-th text, as far as there are any.
    """

    samples: ClassVar[bool] = False

    column: str = "demonstration"
    """Data column with the assistant's answer, or a list of them."""
    labels: str | None = None
    """Data column with what each answer was worth (a number, true, false, or null for unknown): the
    value of `reward: recorded`."""

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
        held = prompt.meta.get(self.column)
        texts: list[Any] = held[:group_size] if isinstance(held, list) else [held] * group_size
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise DataError(
                f"prompt {prompt.id!r}: rollouts.agent.column: {self.column!r} holds {held!r:.99}, "
                f"replay needs a text or a list; columns here: {', '.join(sorted(prompt.meta))}"
            )
        labels = self._labels(prompt, len(texts))
        rendered = renderer.render(prompt.messages, name=prompt.id)
        rollouts = []
        for member, text in enumerate(texts):
            tokens = [*renderer.encode(text), renderer.stop_ids[0]]
            session = Session.start(
                prompt, engine, renderer, sampling, seed=seed, member=member, rendered=rendered
            )
            session.replay(text, tokens)
            if labels is not None:
                session.rollout.meta["recorded"] = labels[member]
            rollouts.append(session.rollout)
        return Group(prompt, rollouts)

    def _labels(self, prompt: Prompt, count: int) -> list[float | None] | None:
        if self.labels is None:
            return None
        held = prompt.meta.get(self.labels)
        found = held if isinstance(held, list) else [held] * count
        numbers = all(one is None or isinstance(one, (bool, int, float)) for one in found)
        if len(found) < count or not numbers:
            raise DataError(
                f"prompt {prompt.id!r}: rollouts.agent.labels: {self.labels!r} holds {held!r:.99}, "
                f"replay needs a number, or one for each of the {count} answers"
            )
        return [None if one is None else float(one) for one in found]
