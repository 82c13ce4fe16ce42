"""ChartQA's rule: a number within 5 %, anything else word for word."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.ops.chart_numbers import plain_number, written_number
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class RelaxedAccuracy(AnswerReward):
    """With a and g the numbers of answer and row: 1[|a - g| / |g| <= tolerance]; 1[equal text, in
    any case] where one is no number, or g = 0. The best over the row's accepted answers.

    soft: max(0, 1 - |a - g| / (soft |g|)) instead of 0 or 1. Source: ChartQA (arXiv:2203.10244),
    as Pix2Struct's metric has it; `read: written` and `zero: number` are a stricter reading, as
    used here for Mixed-R1.
    """

    tolerance: float = Field(0.05, ge=0)
    soft: float | None = Field(None, gt=0)
    """Relative error at which the credit is gone; None: all or nothing."""
    read: Literal["plain", "written"] = "plain"
    """plain: what `float` reads, `12%` is 0.12. written: also `$1,050`, `2.4k`, and `12%` is 12,
    on both sides."""
    zero: Literal["text", "number"] = "text"
    """Of a right answer of 0: compared as text, so that `0` is not `0.0`, or as a number, which
    must then be 0."""
    numeric: bool = True
    """Off: words only, for years and labels."""

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        accepted = gold if isinstance(gold, list | tuple) else [gold]
        return max((self._value(answer, str(text).strip()) for text in accepted), default=0.0)

    def _value(self, answer: str, gold: str) -> float:
        number = plain_number if self.read == "plain" else written_number
        given = number(answer) if self.numeric else None
        right = number(gold) if self.numeric else None
        if given is None or right is None or (right == 0 and self.zero == "text"):
            return float(answer.lower() == gold.lower())
        if right == 0:
            return float(given == 0)
        error = abs(given - right) / abs(right)
        if self.soft is not None:
            return max(0.0, 1 - error / self.soft)
        return float(error <= self.tolerance)
