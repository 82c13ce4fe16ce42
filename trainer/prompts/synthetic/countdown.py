"""Countdown: make the target from all the numbers, each used once (Jiayi Pan, TinyZero, 2025)."""

from __future__ import annotations

import random
from typing import Any

from pydantic import Field

from trainer.prompts.base import Generated, Row


class Countdown(Generated):
    """Columns: question, answer (an expression that reaches the target, one of many), numbers,
    target, level (how many numbers), demonstration.

    Every problem can be solved. `demonstration` is a careless teacher's answer,
    `<think></think><answer>(3+5)*7</answer>`, drawn anew each epoch.
    """

    count: tuple[int, int] = (3, 4)
    """Least and most numbers in a problem."""
    max_number: int = Field(20, gt=0)
    """Largest number to use."""
    max_target: int = Field(100, gt=0)
    """Largest target; the smallest is 1."""
    question: str = "use {numbers} to make {target}="
    """Text of the question."""
    teacher_error: float = Field(0.5, ge=0, le=1)
    """Share of demonstrations with one operator changed."""

    def make(self, rng: random.Random) -> Row:
        while True:
            numbers = [rng.randint(1, self.max_number) for _ in range(rng.randint(*self.count))]
            order = rng.sample(numbers, len(numbers))
            operators = [rng.choice("+-*") for _ in order[1:]]
            target = _value(order, operators)
            if target is not None and 1 <= target <= self.max_target:
                break
        listed = " ".join(map(str, numbers))
        return {
            "question": self.question.format(numbers=listed, target=target),
            "answer": _expression(order, operators),
            "numbers": numbers,
            "target": target,
            "level": len(numbers),
            "order": order,
            "operators": operators,
        }

    def content(self, row: Row) -> Any:
        return sorted(row["numbers"]), row["target"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        operators = list(row["operators"])
        if rng.random() < self.teacher_error:
            place = rng.randrange(len(operators))
            operators[place] = rng.choice([o for o in "+-*" if o != operators[place]])
        answer = _expression(row["order"], operators)
        return row | {"demonstration": f"<think></think><answer>{answer}</answer>"}


def _value(numbers: list[int], operators: list[str]) -> int | None:
    """Left to right; None if it falls under 1 on the way."""
    value = numbers[0]
    for sign, number in zip(operators, numbers[1:], strict=True):
        value = value + number if sign == "+" else value - number if sign == "-" else value * number
        if value < 1:
            return None
    return value


def _expression(numbers: list[int], operators: list[str]) -> str:
    """`((3+5)*7)-2`: brackets wherever left to right is not what the signs alone say."""
    text, weak = str(numbers[0]), False
    for sign, number in zip(operators, numbers[1:], strict=True):
        text = f"({text})*{number}" if sign == "*" and weak else f"{text}{sign}{number}"
        weak = sign != "*"
    return text
