"""Captions of small pictures with one phrase changed: which one is it?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.ops.drawing import COLORS, SHAPES, canvas, draw_shape
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


class Captions(Generated):
    r"""A picture of `objects` shapes in a row, and `red circle and blue square what is wrong ?`
    with one word changed. The answer is the changed phrase, `blue square`.

    Columns besides: solution_target (the answer), solution_original, original_caption,
    changed_caption, items, demonstration. `demonstration` is a careless teacher's
    `<think>green square</think>\boxed{blue square}`: the thought is the phrase as it should
    be, and with probability `mistakes` another phrase is boxed; drawn anew each epoch.
    """

    objects: int = Field(3, ge=2, le=9)
    mistakes: float = Field(0.5, ge=0, le=1)

    def make(self, rng: random.Random) -> Row:
        items = [[rng.choice(list(COLORS)), rng.choice(SHAPES)] for _ in range(self.objects)]
        place = rng.randrange(self.objects)
        color, shape = items[place]
        if rng.random() < 0.5:
            changed = [rng.choice([one for one in COLORS if one != color]), shape]
        else:
            changed = [color, rng.choice([one for one in SHAPES if one != shape])]
        phrases = [f"{color} {shape}" for color, shape in items]
        said = [*phrases[:place], " ".join(changed), *phrases[place + 1 :]]
        caption = " and ".join(said)
        return {
            "question": f"{caption} what is wrong ?",
            "answer": said[place],
            "solution_target": said[place],
            "solution_original": phrases[place],
            "original_caption": " and ".join(phrases),
            "changed_caption": caption,
            "items": items,
            "images": None,  # drawn from the items when the prompt is
        }

    def content(self, row: Row) -> Any:
        return row["items"], row["changed_caption"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        said = row["answer"]
        if rng.random() < self.mistakes:
            said = rng.choice(row["changed_caption"].split(" and "))
        shown = f"<think>{row['solution_original']}</think>\\boxed{{{said}}}"
        return row | {"demonstration": shown}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        image = canvas(self.objects)
        for i, (color, shape) in enumerate(row["items"]):
            draw_shape(image, shape, color, (i, 0))
        return [image]
