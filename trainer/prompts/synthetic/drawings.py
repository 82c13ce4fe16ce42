"""Pictures described in words, each with the SVG that draws it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import Field

from trainer.prompts.base import Made, Row, Table

_COLOURS = {"red": "#f00", "green": "#090", "blue": "#00f", "black": "#000"}
_SHAPES = ("circle", "square")
_PLACES, _SIZES = range(3, 8), (1, 2, 3)


class Drawings(Table):
    """Columns: question, svg (that of the right picture), parts, demonstration.

    `red circle at 3,4 size 2` asks for a circle with that centre and radius on a canvas of 10 x 10;
    a square has its centre there too, and twice the size as its side. `demonstration` is what a
    careless teacher draws, new each epoch: another colour or shape, or a number that is off by 1.
    """

    holdout: int | float = Field(0.2, ge=0)
    """Problems kept out of training: a share or a count."""
    teacher_error: float = Field(0.6, ge=0, le=1)
    """Share of demonstrations with a mistake."""

    def rows(self) -> Sequence[Row]:
        size = len(_COLOURS) * len(_SHAPES) * len(_PLACES) ** 2 * len(_SIZES)
        return Made(size, self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        parts = list(row["parts"])
        if rng.random() < self.teacher_error:
            place = rng.randrange(len(parts))
            if place < 2:
                kinds = (tuple(_COLOURS), _SHAPES)[place]
                parts[place] = rng.choice([one for one in kinds if one != parts[place]])
            else:
                parts[place] += rng.choice((-1, 1))
        return row | {"demonstration": _svg(parts)}

    def _row(self, index: int) -> Row:
        parts: list = []
        for kinds in ([*_COLOURS], _SHAPES, _PLACES, _PLACES, _SIZES):
            index, place = divmod(index, len(kinds))
            parts.append(kinds[place])
        colour, shape, x, y, size = parts
        question = f"{colour} {shape} at {x},{y} size {size}\n"
        return {"question": question, "svg": _svg(parts), "parts": parts}


def _svg(parts: Sequence) -> str:
    colour, shape, x, y, size = parts
    fill = f'fill="{_COLOURS[colour]}"'
    if shape == "circle":
        inside = f'<circle cx="{x}" cy="{y}" r="{size}" {fill}/>'
    else:
        side = 2 * size
        inside = f'<rect x="{x - size}" y="{y - size}" width="{side}" height="{side}" {fill}/>'
    return f'<svg viewBox="0 0 10 10">{inside}</svg>'
