"""Charts described in words, each with the matplotlib code that draws it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from trainer.prompts.base import Made, Row, Table

_COLOURS = ("red", "green", "blue", "black")
_KINDS = {"bars": "bar", "line": "plot", "dots": "scatter"}
_VALUES = range(1, 7)


class Charts(Table):
    """Columns: question, code (that of the right chart), parts, demonstration.

    `red bars 3 5 2` asks for a bar chart of these three values. `demonstration` is what a careless
    teacher writes, in a code fence, new each epoch: now and then another colour or kind, or a value
    that is off by 1 or 2.
    """

    holdout: int | float = Field(0.2, ge=0)
    """Problems kept out of training: a share or a count."""
    teacher_error: float = Field(0.25, ge=0, le=1)
    """Share of mistakes in each of the five parts: of the demonstrations, 1 - 0.75^5 = 0.76 have
    one or more."""

    def rows(self) -> Sequence[Row]:
        size = len(_COLOURS) * len(_KINDS) * len(_VALUES) ** 3
        return Made(size, self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        parts = [
            rng.choice(_others(part)) if rng.random() < self.teacher_error else part
            for part in row["parts"]
        ]
        return row | {"demonstration": f"```\n{_code(parts)}\n```"}

    def _row(self, index: int) -> Row:
        parts: list = []
        for kinds in (_COLOURS, [*_KINDS], _VALUES, _VALUES, _VALUES):
            index, place = divmod(index, len(kinds))
            parts.append(kinds[place])
        colour, kind, *values = parts
        question = f"{colour} {kind} {' '.join(map(str, values))}\n"
        return {"question": question, "code": _code(parts), "parts": parts}


def _others(part: str | int) -> list:
    """What the teacher may take a part for."""
    if isinstance(part, int):
        return [one for one in _VALUES if 1 <= abs(one - part) <= 2]
    return [one for one in (_COLOURS if part in _COLOURS else _KINDS) if one != part]


def _code(parts: Sequence) -> str:
    colour, kind, a, b, c = parts
    drawn = f'plt.{_KINDS[kind]}([1,2,3],[{a},{b},{c}],color="{colour}")'
    return f"import matplotlib.pyplot as plt\n{drawn}"
