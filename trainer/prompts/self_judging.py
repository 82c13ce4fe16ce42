"""The policy's own answers come back as questions of who is right (SPARK, survey entry 43)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.ops.text import last_boxed, tag_content
from trainer.prompts.base import Prompts
from trainer.types import Prompt

if TYPE_CHECKING:
    from trainer.prompts.base import Stream
    from trainer.types import Group, Rollout

TASKS = ("pointwise", "pairwise", "reflection")
"""`Prompt.task` of the questions made here; `route` gives each its reward."""


class SelfJudging(Prompts):
    r"""Prompts of `source`, and questions made of the answers to them: the policy becomes its own
    generative judge, trained by the same loop.

    A group that is all right or all wrong gives one `pointwise` question (is this answer right?
    `Yes` or `No`) about its first answer. A mixed one gives, with probability `pointwise`, a
    pointwise question about a right or, as likely, a wrong answer, else a `pairwise` one (which is
    right? `A` or `B`), in random order. A group with a wrong answer also gives, with probability
    `reflect`, a `reflection`: the question again, with that wrong answer, to be solved anew. Only
    the final answer (the last \boxed{} or <answer>) is shown; a wrong one that has none is replaced
    by another wrong one. Groups of prompts with images, and of questions made here, give none.
    """

    source: Prompts
    share: float = Field(0.5, gt=0, lt=1)
    """Chance that the next prompt is a made question, while there are any."""
    pointwise: float = Field(0.3, ge=0, le=1)
    reflect: float = Field(0.5, ge=0, le=1)
    """The paper makes at most 32 a step, of 64 prompts."""
    right: float = 1.0
    """An answer is right from this score on."""
    waiting: int = Field(1024, gt=0)
    """Made questions kept at most; the oldest go first."""
    pointwise_text: str = (
        "\nProposed answer: {first}\nIs it right? Answer \\boxed{{Yes}} or \\boxed{{No}}."
    )
    pairwise_text: str = (
        "\nAnswer A: {first}\nAnswer B: {second}\n"
        "One of them is right. Answer \\boxed{{A}} or \\boxed{{B}}."
    )
    reflection_text: str = "\n{first} is wrong. Find the mistake, and answer again."

    def stream(self, seed: int) -> SelfJudgingStream:
        return SelfJudgingStream(self, self.source.stream(seed), seed)

    def heldout(self, limit: int | None = None) -> Sequence[Prompt]:
        return self.source.heldout(limit)

    def columns(self) -> set[str]:
        return self.source.columns() | {"task", "answer"}


class SelfJudgingStream:
    def __init__(self, settings: SelfJudging, source: Stream, seed: int):
        self._settings, self._source, self._seed = settings, source, seed
        self._serial = 0
        self._made: list[Prompt] = []

    def __next__(self) -> Prompt:
        rng = random.Random(f"{self._seed}/{self._serial}/judging")
        made = self._made and rng.random() < self._settings.share
        prompt = self._made.pop(0) if made else next(self._source)
        prompt = replace(prompt, serial=self._serial)
        self._serial += 1
        return prompt

    def observe(self, group: Group) -> None:
        """Makes questions of a scored group."""
        if group.prompt.task in TASKS and group.prompt.meta.get("made"):
            return
        self._source.observe(group)
        rng = random.Random(f"{self._seed}/{group.prompt.serial}/questions")
        self._made += self._questions(group, rng)
        del self._made[: -self._settings.waiting]

    def state_dict(self) -> dict[str, Any]:
        return {
            "serial": self._serial,
            "made": list(self._made),
            "source": self._source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._serial, self._made = state["serial"], list(state["made"])
        self._source.load_state_dict(state["source"])

    def _questions(self, group: Group, rng: random.Random) -> list[Prompt]:
        if not isinstance(group.prompt.messages[-1].get("content"), str):
            return []
        right, wrong = [], []
        for rollout in group.rollouts:
            if rollout.score is not None and rollout.score.value is not None:
                is_right = rollout.score.value >= self._settings.right
                (right if is_right else wrong).append(_final(rollout))
        right = [text for text in right if text]
        spoken = [text for text in wrong if text]
        wrong = [text or rng.choice(spoken) for text in wrong] if spoken else []
        made = []
        if right and wrong:
            made.append(self._mixed(group.prompt, right, wrong, rng))
        elif right or wrong:
            made.append(self._point(group.prompt, (right or wrong)[0], bool(right)))
        if wrong and rng.random() < self._settings.reflect:
            text = self._settings.reflection_text.format(first=rng.choice(wrong))
            made.append(_asked(group.prompt, text, group.prompt.answer, "reflection"))
        return made

    def _mixed(
        self, prompt: Prompt, right: list[str], wrong: list[str], rng: random.Random
    ) -> Prompt:
        if rng.random() < self._settings.pointwise:
            is_right = rng.random() < 0.5
            return self._point(prompt, rng.choice(right if is_right else wrong), is_right)
        pair = [rng.choice(right), rng.choice(wrong)]
        swapped = rng.random() < 0.5
        first, second = reversed(pair) if swapped else pair
        text = self._settings.pairwise_text.format(first=first, second=second)
        return _asked(prompt, text, "B" if swapped else "A", "pairwise")

    def _point(self, prompt: Prompt, answer: str, is_right: bool) -> Prompt:
        text = self._settings.pointwise_text.format(first=answer)
        return _asked(prompt, text, "Yes" if is_right else "No", "pointwise")


def _asked(prompt: Prompt, text: str, answer: Any, task: str) -> Prompt:
    """The prompt with `text` added to its last turn."""
    *before, last = prompt.messages
    turn = last | {"content": last["content"] + text}
    meta = prompt.meta | {"made": task}
    name = f"{prompt.id}/{task}/{prompt.serial}"
    return Prompt(name, (*before, turn), answer=answer, task=task, meta=meta)


def _final(rollout: Rollout) -> str:
    """What an answer comes to, or nothing."""
    found = last_boxed(rollout.reply) or tag_content(rollout.reply) or ""
    return found.strip()
