r"""Mathematical answers in `\boxed{...}`."""

from __future__ import annotations

from trainer.ops.math_answers import grade_answer, load
from trainer.ops.text import last_boxed
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Boxed(PointwiseReward):
    r"""1 if the last balanced `\boxed{...}` of the reply equals the answer, else 0.

    The answer may be LaTeX, plain, or a list of accepted ones; equality is math-verify's. No
    box, or one that cannot be read: 0, `unparsable`. A row without answer does not apply.
    """

    needs = frozenset({"answer"})

    def warm(self) -> None:
        load()

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        if prompt.answer is None:
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason="the row has no answer")
        answer = last_boxed(rollout.reply)
        if answer is None:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=r"no \boxed{...} in the reply")
        return grade_answer(prompt.answer, answer)
