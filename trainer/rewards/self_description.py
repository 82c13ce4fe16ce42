"""The reply's description of the image must be enough to answer without the image (Vision-SR1)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from trainer.errors import DataError, MissingService
from trainer.ops.parsing import LONGEST, tag_fields
from trainer.ops.text import text_of, tightened, without_boxed
from trainer.rewards.base import CompositeReward, Reward, RewardContext, combined, unscored
from trainer.types import Group, Prompt, Rollout, Score, Span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trainer.context import Context

QUESTION = (
    "Text description: {description}\nQuestion: {question}\nThink inside <think> </think>, then "
    "give one word or phrase inside \\boxed{{}}."
)


class SelfDescription(CompositeReward):
    """R = accuracy_weight a + format_weight F + self_weight a2: a the reply's accuracy, F its
    format, a2 the accuracy of a second answer that the same policy gives from the question and the
    reply's `<description>` alone, without the image.

    The second answer is one sample with the current weights, and is never trained on. No
    description, or one that gives the answer away, or that the tokenizer cannot write: a2 = 0
    without asking. A fault is a fault of the sum. Parts: accuracy, format, self. Source: Vision-SR1
    (arXiv:2508.19652), whose code takes the whole reply where the tag is missing (`require_tag:
    false`) and has no guard (`guard: false`).
    """

    accuracy: Reward
    """Also grades the second answer."""
    format: Reward
    accuracy_weight: float = 0.9
    format_weight: float = 0.1
    self_weight: float = 1.0
    tag: str = "description"
    require_tag: bool = True
    guard: bool = True
    r"""Remove `\boxed{}` from the description, and refuse one that holds the row's answer."""
    tight: bool = False
    """Delete the blanks around `<`, `>` and `/` before accuracy and format are graded, as the
    paper's code does: `< think >` is then a tag, and mathematics reads `a/b` for `a / b`."""
    question: str = QUESTION
    """Of the second pass, with `{description}` and `{question}`."""
    max_tokens: int = Field(2048, gt=0)
    temperature: float = Field(1.0, ge=0)
    """0 makes a2 less noisy."""

    _renderer: Any = PrivateAttr(None)

    def children(self) -> dict[str, Reward]:
        return {"accuracy": self.accuracy, "format": self.format}

    def alone(self, prompt: Prompt) -> list[Reward]:
        return [] if self.tight else super().alone(prompt)  # what is graded is another text

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"engine"}

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._renderer = context.renderer
        async with super().open(context):
            yield

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        if self._renderer is None:
            raise MissingService("self_description needs a model: it works in `cohort train`")
        first = replace(group, rollouts=[*map(_tight, group.rollouts)]) if self.tight else group
        rows = await self.scored(first, ctx)
        seen = [self.description(r.reply, group.prompt.answer) for r in group.rollouts]
        asked = {
            i: tokens
            for i, text in enumerate(seen)
            if text is not None and (tokens := self._asked(group.prompt, text)) is not None
        }
        sampling = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        replies = await asyncio.gather(
            *(ctx.continue_(tokens, {}, **sampling) for tokens in asked.values())
        )
        second = await ctx.score(self.accuracy, Group(group.prompt, [_spoken(t) for t in replies]))
        by_row = dict(zip(asked, second, strict=True))
        return [self._sum(scores, by_row.get(i, Score(0.0))) for i, scores in enumerate(rows)]

    def description(self, reply: str, gold: Any) -> str | None:
        """What the second pass is shown; None if it is not asked."""
        fields = tag_fields(reply[-LONGEST:], self.tag)
        if not fields and self.require_tag:
            return None
        text = fields[-1].text if fields else reply[-LONGEST:]
        if not self.guard:
            return text
        text = without_boxed(text)
        gold = gold if isinstance(gold, list | tuple) else [gold]
        said = f" {' '.join(text.lower().split())} "
        given_away = any(f" {str(g).strip().lower()} " in _spaced(said) for g in gold if g)
        return None if given_away or not text.strip() else text

    def _asked(self, prompt: Prompt, description: str) -> list[int] | None:
        """The second prompt; None for a description that the tokenizer itself cannot write again,
        as small vocabularies without parts of words may sample."""
        users = [m for m in prompt.messages if m.get("role") == "user"]
        asked = text_of(users[-1].get("content")).replace("<image>", "") if users else ""
        text = self.question.format(description=description, question=asked.strip())
        try:
            return self._renderer.render(
                ({"role": "user", "content": text},), name=prompt.id
            ).tokens
        except DataError:
            return None

    def _sum(self, scores: dict[str, Score], second: Score) -> Score:
        scores = scores | {"self": second}
        if (lost := unscored(scores)) is not None:
            return lost
        weights = (self.accuracy_weight, self.format_weight, self.self_weight)
        values = (score.value or 0.0 for score in scores.values())
        return combined(sum(w * v for w, v in zip(weights, values, strict=True)), scores)


def _tight(rollout: Rollout) -> Rollout:
    spans = [replace(span, message=tightened(span.message)) for span in rollout.spans]
    return replace(rollout, spans=spans)


def _spaced(text: str) -> str:
    """With blanks in place of punctuation, so that words stand alone."""
    return "".join(c if c.isalnum() else " " for c in text)


def _spoken(reply: str) -> Rollout:
    return Rollout(spans=[Span(None, "assistant", "policy", reply, [], [], [], [])])
