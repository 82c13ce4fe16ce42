"""Graded credit for numbers, lists and words read off a chart."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.ops.chart_numbers import written_number
from trainer.ops.edit_distance import similarity
from trainer.ops.text import normalise
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Graded(AnswerReward):
    """num: max(0, 1 - e / worst), e = |p - g| / max(|g|, 1e-9); strict_num: 1[e <= tolerance].
    list (split at commas): mean over the places of both, times the shorter over the longer length.
    text and year: 1[equal], or ANLS with `anls`. A number against a word: 0.

    The kind is the column `answer_type` (num, text, list, year), or what the right answer looks
    like. After BigCharts-R1 (arXiv:2508.09804): only its abstract was read, the formula and every
    constant are ours.
    """

    worst: float = Field(1.0, gt=0)
    """Relative error at which the credit is gone."""
    strict_num: bool = False
    tolerance: float = Field(0.05, ge=0)
    anls: float | None = Field(None, ge=0, le=1)
    """Threshold under which a text is worth 0; None: texts must be equal."""
    kind_column: str = "answer_type"

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        kind = prompt.meta.get(self.kind_column)
        if kind not in (None, "num", "text", "list", "year"):
            raise ValueError(f"{self.kind_column} {kind!r}: must be num, text, list or year")
        if kind == "list" or (kind is None and isinstance(gold, list | tuple)):
            right = gold if isinstance(gold, list | tuple) else str(gold).split(",")
            return self._list(answer.split(","), [str(item) for item in right])
        return self._one(answer, str(gold), kind)

    def _list(self, given: list[str], right: list[str]) -> float:
        both = list(zip(given, right, strict=False))
        if not both:
            return float(not given and not right)
        mean = sum(self._one(a.strip(), g.strip(), None) for a, g in both) / len(both)
        return mean * min(len(given), len(right)) / max(len(given), len(right))

    def _one(self, answer: str, gold: str, kind: Literal["num", "text", "year"] | None) -> float:
        p, g = written_number(answer), written_number(gold)
        if kind in ("text", "year"):
            p = g = None
        elif (p is None) != (g is None):
            return 0.0
        if p is None or g is None:
            a, b = normalise(answer), normalise(gold)
            near = similarity(a, b)
            return float(a == b) if self.anls is None else near * (near >= self.anls)
        if p == g:
            return 1.0
        error = abs(p - g) / max(abs(g), 1e-9)
        if self.strict_num:
            return float(error <= self.tolerance)
        return max(0.0, 1 - error / self.worst)
