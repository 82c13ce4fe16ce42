"""Printed rows of digits to be read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from trainer.ops.drawing import canvas, draw_digit
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


class Codes(Generated):
    """`what is in this picture ?` and the digits of a picture 28 pixels high, from left to right,
    parted by blanks: `4 0 7 1`. Columns besides: level (number of digits), demonstration.

    `demonstration` is a careless teacher's `<answer>4 0 1</answer>`: each digit is left out with
    probability `misses`, else another one with probability `mistakes`; drawn anew each epoch.
    """

    digits: tuple[int, int] = (3, 6)
    """Least and most."""
    misses: float = Field(0.15, ge=0, le=1)
    mistakes: float = Field(0.3, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Codes:
        if not 1 <= self.digits[0] <= self.digits[1] <= 9:
            raise ValueError("digits: must be 1 <= least <= most <= 9")
        return self

    def make(self, rng: random.Random) -> Row:
        text = " ".join(rng.choice("0123456789") for _ in range(rng.randint(*self.digits)))
        return {
            "question": "what is in this picture ?",
            "answer": text,
            "level": len(text.split()),
            "images": None,  # drawn from the answer when the prompt is
        }

    def content(self, row: Row) -> Any:
        return row["answer"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        said = [
            rng.choice("0123456789") if rng.random() < self.mistakes else digit
            for digit in row["answer"].split()
            if rng.random() >= self.misses
        ]
        return row | {"demonstration": f"<answer>{' '.join(said)}</answer>"}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        digits = row["answer"].split()
        image = canvas(len(digits))
        for i, digit in enumerate(digits):
            draw_digit(image, digit, (i, 0))
        return [image]
