"""Small functions described in words, each with the unit tests that a written one must pass."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from trainer.prompts.base import Made, Row, Table

_SIGNS = {"add": "+", "take": "-", "times": "*"}


class Functions(Table):
    """Columns: question, tests, program, level (pairs of brackets that are needed), demonstration.

    `add 3, times 2` asks for `def f(x):return (x+3)*2`; `tests` are asserts on what it returns.
    `demonstration` is what a careless teacher writes, drawn anew each epoch: without the brackets
    where they are needed, else with a wrong number or sign. At the usual share of mistakes most
    demonstrations leave the brackets out, so who imitates the teacher best does so too.
    """

    steps: int = Field(2, ge=1, le=5)
    """Steps of a description."""
    largest: int = Field(9, gt=1)
    """Largest number of a step; the smallest is 2."""
    holdout: int | float = Field(0.2, ge=0)
    """Problems kept out of training: a share or a count."""
    teacher_error: float = Field(0.6, ge=0, le=1)
    """Share of demonstrations with a mistake."""
    arguments: tuple[int, ...] = Field((1, 7), min_length=1)
    """What the tests call the function with."""

    def rows(self) -> Sequence[Row]:
        return Made((len(_SIGNS) * (self.largest - 1)) ** self.steps, self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        steps = row["steps"]
        if rng.random() >= self.teacher_error:
            return row | {"demonstration": row["program"]}
        if row["level"]:
            return row | {"demonstration": _program(steps, brackets=False)}
        place = rng.randrange(len(steps))
        word, number = steps[place]
        if rng.random() < 0.5:
            word = rng.choice([other for other in _SIGNS if other != word])
        else:
            number += rng.choice((-1, 1))
        wrong = [*steps[:place], [word, number], *steps[place + 1 :]]
        return row | {"demonstration": _program(wrong)}

    def _row(self, index: int) -> Row:
        steps: list[list] = []
        for _ in range(self.steps):
            index, word = divmod(index, len(_SIGNS))
            index, number = divmod(index, self.largest - 1)
            steps.append([[*_SIGNS][word], number + 2])
        return {
            "question": ", ".join(f"{word} {number}" for word, number in steps) + "\n",
            "tests": [f"assert f({x}) == {_value(steps, x)}" for x in self.arguments],
            "program": _program(steps),
            "level": _program(steps).count("(x") - 1,
            "steps": steps,
        }


def _value(steps: Sequence[Sequence], x: int) -> int:
    for word, number in steps:
        x = x + number if word == "add" else x - number if word == "take" else x * number
    return x


def _program(steps: Sequence[Sequence], *, brackets: bool = True) -> str:
    found, sum_ = "x", False
    for word, number in steps:
        if word == "times" and sum_ and brackets:
            found = f"({found})"
        found, sum_ = f"{found}{_SIGNS[word]}{number}", word != "times"
    return f"def f(x):return {found}"
