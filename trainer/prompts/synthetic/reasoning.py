"""Pictures of one shape, and a teacher whose reasoning and answers do not always fit."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainer.ops.drawing import COLORS, SHAPES, canvas, draw_shape
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


class Reasoning(Generated):
    """28 x 28 pixels with one shape: `what color is it ?` "red", or with choices `what color is it
    , red or blue ?`. Columns besides: facts (colour and shape), side (pixels), options and labels
    (both the colours to choose from), demonstration.

    `demonstration` is drawn anew each epoch: `<think>red circle</think><answer>red</answer>`, with
    the colour in `<think>` wrong with probability `careless`, and an answer that is what it said,
    or with probability `astray` drawn at random.
    """

    choices: int = Field(0, ge=0, le=len(COLORS))
    """Colours to choose from; 0: the question names none."""
    careless: float = Field(0.2, ge=0, le=1)
    astray: float = Field(0.3, ge=0, le=1)
    omits: float = Field(0.0, ge=0, le=1)
    """Probability that the teacher does not say the shape."""
    layout: Literal["think_answer", "description"] = "think_answer"
    r"""`description`: `describe :` before the question; the facts in `<description>`, `color` in
    `<think>`, the answer in `\boxed{}`."""
    picture: bool = True
    """Off: the facts stand before the question, in place of the picture."""

    def make(self, rng: random.Random) -> Row:
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        row: Row = {
            "question": "what color is it ?",
            "answer": color,
            "facts": [color, shape],
            "side": rng.randint(12, 26),
            "images": None,  # drawn from the facts when the prompt is
        }
        if self.choices:
            others = [one for one in COLORS if one != color]
            options = [color, *rng.sample(others, self.choices - 1)]
            rng.shuffle(options)
            row["question"] = f"what color is it , {' or '.join(options)} ?"
            row |= {"options": options, "labels": options}
        if self.layout == "description":
            row["question"] = f"describe : {row['question']}"
        if not self.picture:
            row["question"] = f"{color} {shape} {row['question']}"
        return row

    def content(self, row: Row) -> Any:
        return row["question"], row["facts"], row["side"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        color, shape = row["facts"]
        named = row.get("options") or list(COLORS)
        said = rng.choice(named) if rng.random() < self.careless else color
        answer = rng.choice(named) if rng.random() < self.astray else said
        told = said if rng.random() < self.omits else f"{said} {shape}"
        if self.layout == "think_answer":
            shown = f"<think>{told}</think><answer>{answer}</answer>"
        else:
            shown = f"<description>{told}</description><think>color</think>\\boxed{{{answer}}}"
        return row | {"demonstration": shown}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        if not self.picture:
            return []
        image = canvas(1)
        color, shape = row["facts"]
        draw_shape(image, shape, color, (0, 0), row["side"])
        return [image]
