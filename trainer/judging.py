"""What rewards that ask a generative judge have in common."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field, PrivateAttr, model_validator

from trainer.ops.asking import ServerFault
from trainer.ops.chat import Chat, ChatServer
from trainer.ops.master_keys import MASTER_KEYS, is_master_key
from trainer.ops.parsing import Unparsable, answer_field
from trainer.ops.rubric import (
    check_fields,
    conversation,
    fields_of,
    fill,
    image_part,
    images_of,
)
from trainer.ops.text import last_boxed, tag_content, text_of
from trainer.rewards.base import Reward, RewardContext
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus

if TYPE_CHECKING:
    from trainer.context import Context

T = TypeVar("T")
Verdict = float | ServerFault | Unparsable
"""What the judge said, or why that is lost."""


class Judging(Reward):
    """A model behind an OpenAI-compatible API reads the rubric with the answers filled in.

    Fields of a rubric: `{question}` (text of the last message of the prompt), `{conversation}`
    (all of it), `{reference}` (the row's answer), `{meta.column}`, and the answers as the plug-in
    says. What is filled in cannot close or open a tag that the rubric itself uses. A judge that
    does not answer is a fault of that rollout (value None), counted by `scoring.fault_budget`;
    the time it takes is bounded by `server`, not by `scoring.deadline`.

    The guard: an answer without content, on which generative judges are known to say yes, is worth
    `floor` without a question (One Token to Fool LLM-as-a-Judge, arXiv:2507.08794; the guard is
    ours). Part `guarded` is 1 for those.
    """

    answers: ClassVar[tuple[str, ...]] = ("answer",)
    """Fields of the rubric that show answers; it must have each of them."""

    server: ChatServer
    rubric: str
    system: str = ""
    """Text of a system message before the rubric."""
    images: bool = False
    """Show the prompt's images to the judge, before the rubric's text."""
    tag: str | None = None
    """Show what stands in the reply's last `<tag>`; None: the whole reply."""
    guard: bool = True
    keys: tuple[str, ...] = MASTER_KEYS
    """What the guard refuses besides answers without letters and digits."""
    floor: float = Field(0.0, allow_inf_nan=False)
    """Value of answers that the judge is not shown: guarded ones, and replies without the tag or
    too long, which are `unparsable`."""
    longest: int = Field(20_000, gt=0)
    """Characters of the longest answer the judge is shown."""
    samples: int = Field(1, gt=0)
    """Verdicts drawn per question, whose mean counts; more than one needs a temperature."""
    unreadable: float | None = Field(None, allow_inf_nan=False)
    """Value where no verdict can be read in what the judge said; None: a fault."""
    failed: float | None = Field(None, allow_inf_nan=False)
    """Value where the judge did not answer at all; None: a fault. Papers that write 0 here
    (ReFine-RFT, Perception-R1) teach that an answer is bad when a server is down."""

    _chat: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _rubric_fits(self) -> Self:
        known = ("question", "conversation", "reference", *self.answers)
        try:
            check_fields(self.rubric, known, self.answers)
        except ValueError as error:
            raise ValueError(f"rubric: {error}") from None
        if self.samples > 1 and self.server.temperature == 0:
            raise ValueError(
                f"samples: {self.samples} verdicts at server.temperature 0 are the same one; set "
                "a temperature, or samples: 1"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        fields = fields_of(self.rubric)  # whose {answer} is the reply's
        columns = {"answer"} if "reference" in fields else set()
        return frozenset(columns.union(name for name in fields if name.startswith("meta.")))

    def ready(self) -> None:
        self.server.ready()

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        async with self.server.open(context) as chat:
            self._chat = chat
            try:
                yield
            finally:
                self._chat = None

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        with ctx.waiting():
            if self._chat is not None:
                return await self.judge(group, ctx, self._chat)
            async with self.server.open(None) as chat:  # `cohort score` opens no rewards
                return await self.judge(group, ctx, chat)

    async def judge(self, group: Group, ctx: RewardContext, chat: Chat) -> list[Score]:
        """One score per rollout, in order."""
        raise NotImplementedError

    async def each(
        self, group: Group, rate: Callable[[str], Awaitable[Sequence[Verdict]]]
    ) -> list[Score]:
        """The mean of what `rate` makes of the text of every rollout, equal texts once."""
        shown = [self.shown(rollout, group.prompt) for rollout in group.rollouts]
        texts = list(dict.fromkeys(text for text in shown if isinstance(text, str)))
        found = await together([rate(text) for text in texts])
        by_text = dict(zip(texts, found, strict=True))
        return [
            self.mean_or_lost(by_text[text]) if isinstance(text, str) else text for text in shown
        ]

    def mean_or_lost(self, found: Sequence[Verdict]) -> Score:
        """The mean of the verdicts that are there. None at all: `failed` if the judge did not
        answer, else `unreadable`; a fault where that is None."""
        values = [value for value in found if isinstance(value, float)]
        if values:
            return Score(fmean(values), parts={"guarded": 0.0})
        silence = next((lost for lost in found if isinstance(lost, ServerFault)), None)
        if silence is None:
            value, status = self.unreadable, ScoreStatus.RAISED
            reason = next((f"verdict: {lost}" for lost in found), "")
        else:
            value, status, reason = self.failed, silence.status, str(silence)
        if value is None:
            return Score.fault(status, reason)
        return Score(value, parts={"guarded": 0.0}, status=ScoreStatus.UNPARSABLE, reason=reason)

    def shown(self, rollout: Rollout, prompt: Prompt) -> str | Score:
        """What the judge is shown of a rollout; its score where the judge is not asked."""
        reply = rollout.reply
        try:
            text = reply.strip()
            if self.tag is not None:
                text = answer_field(reply, self.tag, require_tag=True, empty=True).text
            if len(text) > self.longest:
                raise Unparsable(f"an answer of {len(text)} characters, not {self.longest}")
        except Unparsable as error:
            return Score(self.floor, status=ScoreStatus.UNPARSABLE, reason=str(error))
        if self.guard and is_master_key(_final(text), _texts(prompt.answer), self.keys):
            return Score(self.floor, parts={"guarded": 1.0})
        return text

    async def messages(self, prompt: Prompt, answers: dict[str, str]) -> list[dict[str, Any]]:
        """The question; `answers` are the fields that show answers."""
        values = {
            "question": text_of(prompt.messages[-1].get("content")) if prompt.messages else "",
            "conversation": conversation(prompt.messages),
            "reference": _text(prompt.answer) or "",
        }
        for name in fields_of(self.rubric):
            if name.startswith("meta."):
                values[name] = _text(_column(prompt, name)) or ""
        text = fill(self.rubric, values | answers)
        content: Any = text
        if self.images and (images := images_of(prompt.messages)):
            parts = await asyncio.to_thread(lambda: [image_part(image) for image in images])
            content = [*parts, {"type": "text", "text": text}]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": content}]


async def together(questions: Sequence[Awaitable[T]]) -> list[T]:
    """All answers; the first error ends what is still under way, and is raised as it is."""

    async def one(question: Awaitable[T]) -> T:
        return await question

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(question)) for question in questions]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in running]


async def settled(questions: Sequence[Awaitable[float]]) -> list[Verdict]:
    """What each question came to, lost verdicts included; other errors as `together`."""

    async def one(question: Awaitable[float]) -> Verdict:
        try:
            return await question
        except (ServerFault, Unparsable) as fault:
            return fault

    return await together([one(question) for question in questions])


def mean(found: Sequence[Verdict]) -> float:
    """Of the verdicts that are there; raises the first fault where none is."""
    values = [value for value in found if isinstance(value, float)]
    if not values:
        raise next(lost for lost in found if isinstance(lost, Exception))
    return fmean(values)


def _final(text: str) -> str:
    """The answer proper of what is shown."""
    inside = tag_content(text)
    if inside is None:
        inside = last_boxed(text)
    return text if inside is None else inside


def _column(prompt: Prompt, name: str) -> Any:
    value: Any = prompt.meta
    for key in name.split(".")[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str | None:
    """A column as a judge reads it."""
    texts = _texts(value)
    return ", ".join(texts) if texts else None


def _texts(value: Any) -> list[str]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
