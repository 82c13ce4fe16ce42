"""Sums worked out line by line, with every line marked right or wrong: data for process rewards."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from trainer.ops.digits import digits
from trainer.prompts.base import Made, Row, Table


class Chain(Table):
    """Columns: question, answer, numbers, steps, labels.

    `steps` are the lines of a careless teacher's solution of `3+8+5=`: `3+8=11`, `11+5=16`,
    `<answer>16</answer>`, some of them idle (`8=8`: true, and of no use); `labels` say of each
    whether what it states is true, of the last whether it is the right answer. Both are drawn
    anew each epoch.
    """

    terms: int = Field(3, ge=2, le=8)
    """Numbers in a sum."""
    max_value: int = Field(9, gt=0)
    """Largest number."""
    holdout: int | float = Field(0.2, ge=0)
    """Problems kept out of training: a share or a count."""
    teacher_error: float = Field(0.5, ge=0, le=1)
    """Share of solutions with one wrong line, from which the teacher goes on."""
    idle: float = Field(0.15, ge=0, lt=1)
    """Chance of an idle line, at each place before the answer and after each idle line."""

    quits: float = Field(0.0, ge=0, le=1)
    """Share of solutions that stop before the answer, whatever line they have reached: their last
    label is 0."""

    def rows(self) -> Sequence[Row]:
        return Made((self.max_value + 1) ** self.terms, self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        numbers: list[int] = row["numbers"]
        wrong = rng.randrange(1, len(numbers)) if rng.random() < self.teacher_error else None
        steps, labels, total = self._idle(numbers, rng), [], numbers[0]
        labels += [1] * len(steps)
        for place, number in enumerate(numbers[1:], start=1):
            before, total = total, total + number
            if place == wrong:
                total = max(0, total + rng.choice((-2, -1, 1, 2)))
            idle = self._idle(numbers, rng)
            steps += [f"{before}+{number}={total}", *idle]
            labels += [int(total == before + number)] + [1] * len(idle)
        steps.append(f"<answer>{total}</answer>")
        labels.append(int(str(total) == row["answer"]))
        if rng.random() < self.quits:
            kept = rng.randrange(1, len(steps))
            steps, labels = steps[:kept], [*labels[: kept - 1], 0]
        return row | {"steps": steps, "labels": labels}

    def _row(self, index: int) -> Row:
        numbers, _ = digits(index, self.max_value + 1, self.terms)
        return {
            "question": "+".join(map(str, numbers)) + "=",
            "answer": str(sum(numbers)),
            "numbers": numbers,
        }

    def _idle(self, numbers: Sequence[int], rng: random.Random) -> list[str]:
        found = []
        while rng.random() < self.idle:
            number = rng.choice(numbers)
            found.append(f"{number}={number}")
        return found
