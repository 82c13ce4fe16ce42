"""Sums with proposed answers, `3+4+5=12?`: data for a model that is to judge answers in words."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from trainer.ops.digits import digits
from trainer.prompts.base import Made, Row, Table


class Verdicts(Table):
    """Columns: question, answer, task, numbers, demonstration.

    `pointwise` questions show one answer, right or wrong as likely, and ask for `Yes` or `No`;
    `pairwise` ones show a right and a wrong answer in random order and ask for `A` or `B`: what
    `self_judging` makes of a policy's own answers. `demonstration` is a careless judge's
    `<answer>Yes</answer>`. Shown answers and demonstration are drawn anew each epoch.
    """

    terms: int = Field(3, ge=2, le=8)
    """Numbers in a sum."""
    max_value: int = Field(9, gt=0)
    """Largest number."""
    pointwise: float = Field(0.3, ge=0, le=1)
    """Share of pointwise questions."""
    pointwise_text: str = "{first}?"
    """Behind the sum, as in `self_judging`."""
    pairwise_text: str = "{first}/{second}?"
    holdout: int | float = Field(0.2, ge=0)
    """Sums kept out of training: a share or a count."""
    teacher_error: float = Field(0.4, ge=0, le=1)
    """Share of demonstrations that say the opposite."""

    def rows(self) -> Sequence[Row]:
        return Made((self.max_value + 1) ** self.terms, self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        right = sum(row["numbers"])
        wrong = right + rng.choice([by for by in (-2, -1, 1, 2) if right + by >= 0])
        words, task, text = ("A", "B"), "pairwise", self.pairwise_text
        if rng.random() < self.pointwise:
            words, task, text = ("Yes", "No"), "pointwise", self.pointwise_text
        first, second = (right, wrong) if rng.random() < 0.5 else (wrong, right)
        answer, opposite = words if first == right else reversed(words)
        said = opposite if rng.random() < self.teacher_error else answer
        return row | {
            "question": row["question"] + text.format(first=first, second=second),
            "answer": answer,
            "task": task,
            "demonstration": f"<answer>{said}</answer>",
        }

    def _row(self, index: int) -> Row:
        numbers, _ = digits(index, self.max_value + 1, self.terms)
        return {
            "question": "+".join(map(str, numbers)) + "=",
            "answer": None,
            "task": None,
            "numbers": numbers,
        }
