"""Small pages to be ranked by what a question asks for."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from trainer.ops.drawing import COLORS, SHAPES, canvas, draw_shape
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


class Pages(Generated):
    """`<image> 1 <image> 2 ... which show red ?`: `pages` pictures of one shape each, of which one
    to `most` have the colour. The answer is the list of their numbers.

    Columns besides: positives, candidates, items, demonstration. `demonstration` is a careless
    teacher's ranking of all pages, right ones first, in which `swaps` pairs of places have been
    exchanged at random; drawn anew each epoch.
    """

    colors: tuple[Literal["red", "green", "blue", "yellow", "purple", "orange"], ...] = Field(
        ("red", "green", "blue", "yellow", "purple", "orange"), min_length=1
    )
    """That questions ask for."""
    pages: int = Field(5, ge=2, le=20)
    most: int = Field(2, ge=1)
    swaps: int = Field(2, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Pages:
        if self.most >= self.pages:
            raise ValueError(f"most: {self.most} must be below pages: {self.pages}")
        return self

    def make(self, rng: random.Random) -> Row:
        color = rng.choice(self.colors)
        others = [one for one in COLORS if one != color]
        right = sorted(rng.sample(range(1, self.pages + 1), rng.randint(1, self.most)))
        items = [
            [color if i in right else rng.choice(others), rng.choice(SHAPES)]
            for i in range(1, self.pages + 1)
        ]
        marks = " ".join(f"<image> {i}" for i in range(1, self.pages + 1))
        return {
            "question": f"{marks} which show {color} ?",
            "answer": right,
            "positives": right,
            "candidates": self.pages,
            "color": color,
            "items": items,
            "images": None,  # drawn from the items when the prompt is
        }

    def content(self, row: Row) -> Any:
        return row["question"], row["items"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        wrong = [i for i in range(1, self.pages + 1) if i not in row["positives"]]
        order = [*row["positives"], *wrong]
        for _ in range(self.swaps):
            a, b = rng.randrange(self.pages), rng.randrange(self.pages)
            order[a], order[b] = order[b], order[a]
        listed = ",".join(map(str, order))
        return row | {"demonstration": f"<think>{row['color']}</think><answer>[{listed}]</answer>"}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        found = []
        for color, shape in row["items"]:
            image = canvas(1)
            draw_shape(image, shape, color, (0, 0))
            found.append(image)
        return found
