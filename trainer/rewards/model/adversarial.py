"""A discriminator between reference answers and the policy's own, trained beside the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from trainer.learned import LearnedReward
from trainer.losses.base import Loss
from trainer.rewards.base import RewardContext
from trainer.types import Group, Prompt, Score, ScoreStatus

if TYPE_CHECKING:
    from trainer.types import Batch


class Adversarial(LearnedReward):
    """value = h(question, answer), the discriminator's raw value, no squashing.

    h learns to tell the reference answers of the data from the policy's: per prompt as many of the
    one as of the other, so that the hinge loss is 1/2 (mean max(0, 1 - h(real)) + mean max(0,
    1 + h(own))). Its values of different steps are not comparable: log a fixed measure too, with
    `evaluation.reward`. The text form of Adv-GRPO's discriminator (survey entry 202). Logs
    `separated`, the share of answers on their side of 0 before the update.
    """

    column: str = Field("demonstration", min_length=1)
    """Data column with a reference answer, or a list of them."""
    every: int = Field(1, gt=0)
    """Steps between updates of the discriminator."""
    enough: float = Field(0.95, gt=0, le=1)
    """No update where more than this share is already told apart: a perfect discriminator's
    differences are noise. 1: always learn."""
    loss: Loss = Field("hinge", validate_default=True)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"meta.{self.column}"})

    @property
    def learns_by(self) -> Loss:
        return self.loss

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if not self._references(group.prompt):
            reason = f"no reference answer in column {self.column!r}"
            return [Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason) for _ in group.rollouts]
        rows = [self._row(group.prompt, rollout.reply) for rollout in group.rollouts]
        return [Score(value) for value in await self.values(rows)]

    async def learn(
        self, groups: Sequence[Group], batch: Batch, step: int
    ) -> tuple[Batch, dict[str, float]]:
        if step % self.every:
            return batch, {}
        rows: list[list[int]] = []
        labels: list[float] = []
        places: list[int] = []
        for place, group in enumerate(groups):
            real = self._references(group.prompt)
            own = [r.reply for r in group.rollouts if r.score and r.score.value is not None]
            for text, reply in zip(real, own, strict=False):
                rows += [self._row(group.prompt, text), self._row(group.prompt, reply)]
                labels += [1.0, 0.0]
                places += [place, place]
        values = await self.values(rows)
        told = [(v > 0) == (label > 0.5) for v, label in zip(values, labels, strict=True)]
        counted = await self._everywhere((sum(told), len(told)))
        right, total = (sum(column) for column in zip(*counted, strict=True))
        report = {"separated": right / total} if total else {}
        if total and right / total <= self.enough:
            report |= await self.fit(rows, labels, places, step)
        return batch, report

    async def _everywhere(self, value: tuple[int, int]) -> list[tuple[int, int]]:
        import asyncio

        return await asyncio.to_thread(self._context.gather, value)

    def _references(self, prompt: Prompt) -> list[str]:
        held = prompt.meta.get(self.column)
        texts = held if isinstance(held, list) else [held]
        return [text for text in texts if isinstance(text, str) and text]

    def _row(self, prompt: Prompt, reply: str) -> list[int]:
        asked = self.renderer.render(prompt.messages, name=prompt.id)
        return [*asked.tokens, *self.renderer.encode(reply), self.renderer.stop_ids[0]]
