"""Walks along a line of letters, `c>h:`: many dependent moves, and one outcome at the end."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from trainer.prompts.base import Made, Row, Table


class Walk(Table):
    """Columns: question, start, goal, places, moves (most allowed), level (distance),
    demonstration.

    A walk is written move by move with the place it leads to, `+d-c+d+e`, and stops at the goal;
    `+` is one letter on, `-` one back, and the line ends at both sides. `demonstration` is an
    aimless teacher's: every move is drawn at random, it stops where it happens to meet the goal or
    after `moves` moves. For the reward `text/walk`.
    """

    places: int = Field(12, ge=3, le=26)
    """Letters on the line, from `a`."""
    moves: int = Field(16, gt=0)
    """Most moves of a walk."""
    idle: float = Field(0.0, ge=0, lt=1)
    """Chance of each dot after a walk that did not arrive, `+d-c....`: a teacher who does not come
    to an end where he has failed. The reward does not mind them."""
    question: str = "{start}>{goal}:"
    """Text of the question."""
    holdout: int | float = Field(0.2, ge=0)
    """Pairs of start and goal kept out of training: a share or a count."""

    def rows(self) -> Sequence[Row]:
        return Made(self.places * (self.places - 1), self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        letters = string.ascii_lowercase
        place, goal = letters.index(row["start"]), letters.index(row["goal"])
        steps: list[str] = []
        while place != goal and len(steps) < self.moves:
            options = [m for m in (-1, 1) if 0 <= place + m < self.places]
            move = rng.choice(options)
            place += move
            steps.append(f"{'+' if move > 0 else '-'}{letters[place]}")
        while place != goal and rng.random() < self.idle:
            steps.append(".")
        return row | {"demonstration": "".join(steps)}

    def _row(self, index: int) -> Row:
        start, other = divmod(index, self.places - 1)
        goal = other + (other >= start)
        letters = string.ascii_lowercase
        names: dict[str, Any] = {"start": letters[start], "goal": letters[goal]}
        return names | {
            "question": self.question.format(**names),
            "places": self.places,
            "moves": self.moves,
            "level": abs(goal - start),
        }
