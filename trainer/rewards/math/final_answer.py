"""Mathematical answers wherever the reply ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.ops.math_answers import grade_answer, load
from trainer.ops.text import last_boxed, last_number, tag_content
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class FinalAnswer(PointwiseReward):
    r"""1 if the reply's final answer equals the row's, else 0.

    The answer may be LaTeX, plain, or a list of accepted ones; equality is math-verify's. A
    reply without final answer, or with one that cannot be read: 0, `unparsable`. A row without
    answer does not apply.
    """

    needs = frozenset({"answer"})

    order: tuple[Literal["tag", "boxed", "number"], ...] = Field(
        ("tag", "boxed", "number"), min_length=1
    )
    r"""Where to look, first find wins: `tag` the last `<answer>`, `boxed` the last `\boxed{}`,
    `number` the last number. A box inside the tag is opened."""
    tag: str = "answer"

    def warm(self) -> None:
        load()

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        if prompt.answer is None:
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason="the row has no answer")
        answer = self._find(rollout.reply)
        if answer is None:
            reason = f"no final answer in the reply (looked for {', '.join(self.order)})"
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
        return grade_answer(prompt.answer, answer)

    def _find(self, reply: str) -> str | None:
        for place in self.order:
            if place == "tag":
                found = tag_content(reply, self.tag)
                found = last_boxed(found) or found if found else None
            else:
                found = last_boxed(reply) if place == "boxed" else last_number(reply)
            if found:
                return found
        return None
