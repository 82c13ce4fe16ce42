"""Chains of small numbers, `3+4+5=`: a finite set of problems, split without overlap."""

from __future__ import annotations

import operator
import random
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from trainer.ops.digits import digits
from trainer.prompts.base import Made, Row, Table

_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class Arithmetic(Table):
    """Columns: question, answer, level (running totals of two digits or more), numbers,
    demonstration.

    `demonstration` is what a careless teacher writes, with the running totals as reasoning:
    `<think>1+8=09</think><answer>11</answer>`. It is drawn anew each epoch.
    """

    terms: int = Field(3, ge=2, le=8)
    """Numbers in a chain."""
    max_value: int = Field(9, gt=0)
    """Largest number."""
    operators: tuple[Literal["+", "-", "*"], ...] = ("+",)
    """Drawn at random between the numbers. `*` only by itself: a chain is read left to right."""
    holdout: int | float = Field(0.2, ge=0)
    """Problems kept out of training: a share or a count."""
    teacher_error: float = Field(0.6, ge=0, le=1)
    """Share of demonstrations with one wrong step, from which the teacher goes on."""

    @model_validator(mode="after")
    def _left_to_right(self) -> Arithmetic:
        if not self.operators or len(set(self.operators)) != len(self.operators):
            raise ValueError(f"operators must be different and at least one, got {self.operators}")
        if "*" in self.operators and len(self.operators) > 1:
            raise ValueError("operators: `*` binds more tightly than the others, use it alone")
        return self

    def rows(self) -> Sequence[Row]:
        size = (self.max_value + 1) ** self.terms * len(self.operators) ** (self.terms - 1)
        return Made(size, self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        return row | {"demonstration": self._demonstration(row["numbers"], row["operators"], rng)}

    def _row(self, index: int) -> Row:
        numbers, rest = digits(index, self.max_value + 1, self.terms)
        chosen, _ = digits(rest, len(self.operators), self.terms - 1)
        operators = [self.operators[which] for which in chosen]
        totals = _totals(numbers, operators)
        text = "".join(f"{o}{n}" for o, n in zip(operators, numbers[1:], strict=True))
        return {
            "question": f"{numbers[0]}{text}=",
            "answer": str(totals[-1]),
            "level": sum(abs(total) > 9 for total in totals),
            "numbers": numbers,
            "operators": operators,
        }

    def _demonstration(self, numbers: list[int], operators: list[str], rng: random.Random) -> str:
        wrong = rng.randrange(len(operators)) if rng.random() < self.teacher_error else None
        total, steps = numbers[0], []
        width = len(str(self.max_value * (self.terms - 1)))
        for i, (sign, number) in enumerate(zip(operators, numbers[1:], strict=True)):
            before, total = total, _APPLY[sign](total, number)
            if i == wrong:
                least = min(0, total)  # no negative sums where there are none
                total = max(least, total + rng.choice((-2, -1, 1, 2)))
            steps.append(f"{before}{sign}{number}={total:0{width}d}")
        thought = ",".join(steps[:-1]) or f"{numbers[0]}{operators[0]}{numbers[1]}"
        return f"<think>{thought}</think><answer>{total}</answer>"


def _totals(numbers: list[int], operators: list[str]) -> list[Any]:
    totals = numbers[:1]
    for sign, number in zip(operators, numbers[1:], strict=True):
        totals.append(_APPLY[sign](totals[-1], number))
    return totals[1:]
