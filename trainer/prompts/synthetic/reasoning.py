"""Pictures of two shapes, and a teacher whose reasoning and answers do not always fit."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from trainer.ops.drawing import COLORS, SHAPES, canvas, draw_shape
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


class Reasoning(Generated):
    """84 x 84 pixels, two shapes of different kinds and colours in two of nine cells.

    `what color is the circle ?` "red"; with `labels` the choices stand behind it, `A red B blue`,
    and the answer is a label. Columns besides: items, facts (`red circle`, the asked one first),
    options and labels (lists), demonstration.

    `demonstration` is drawn anew each epoch: it says the facts in `<think>`, each colour wrong with
    probability `careless`, and answers what it said, or with probability `astray` at random.
    """

    labels: tuple[str, ...] = ()
    """Names of the choices, as many as there are; none: the answer is the colour's name."""
    thinks: Literal["asked", "all"] = "all"
    """What the teacher says before it answers."""
    careless: float = Field(0.3, ge=0, le=1)
    astray: float = Field(0.3, ge=0, le=1)
    omits: float = Field(0.0, ge=0, le=1)
    """Probability of leaving out the fact that was not asked for."""
    layout: Literal["think_answer", "description"] = "think_answer"
    r"""`description`: `describe :` before the question; the facts in `<description>`, the shape in
    `<think>`, the answer in `\boxed{}`."""
    picture: bool = True
    """Off: the facts stand before the question, in place of the picture."""

    @model_validator(mode="after")
    def _fits(self) -> Reasoning:
        if len(self.labels) == 1 or len(self.labels) > len(COLORS):
            raise ValueError(f"labels: none, or 2 to {len(COLORS)}")
        return self

    def make(self, rng: random.Random) -> Row:
        shapes, colors = rng.sample(SHAPES, 2), rng.sample(list(COLORS), 2)
        cells = rng.sample([(x, y) for x in range(3) for y in range(3)], 2)
        items = [
            {"shape": shape, "color": color, "cell": list(cell)}
            for shape, color, cell in zip(shapes, colors, cells, strict=True)
        ]
        facts = [f"{item['color']} {item['shape']}" for item in items]
        question = f"what color is the {shapes[0]} ?"
        if self.layout == "description":
            question = f"describe : {question}"
        if not self.picture:
            question = f"{' and '.join(facts)} {question}"
        row: Row = {
            "question": question,
            "answer": colors[0],
            "facts": facts,
            "items": items,
            "images": None,  # drawn from the items when the prompt is
        }
        return self._with_options(row, rng) if self.labels else row

    def content(self, row: Row) -> Any:
        return row["question"], row["items"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        said = [
            rng.choice(list(COLORS)) if rng.random() < self.careless else item["color"]
            for item in row["items"]
        ]
        shapes = [item["shape"] for item in row["items"]]
        facts = [f"{color} {shape}" for color, shape in zip(said, shapes, strict=True)]
        if self.thinks == "asked" or rng.random() < self.omits:
            del facts[1:]
        named = list(row.get("options") or COLORS)
        answer = said[0]
        if answer not in named or rng.random() < self.astray:
            answer = rng.choice(named)
        if self.labels:
            answer = self.labels[named.index(answer)]
        return row | {"demonstration": self._said(rng, facts, shapes[0], answer)}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        if not self.picture:
            return []
        image = canvas(3, 3)
        for item in row["items"]:
            draw_shape(image, item["shape"], item["color"], tuple(item["cell"]))
        return [image]

    def _with_options(self, row: Row, rng: random.Random) -> Row:
        right = row["answer"]
        others = [color for color in COLORS if color != right]
        options = [right, *rng.sample(others, len(self.labels) - 1)]
        rng.shuffle(options)
        shown = " ".join(f"{a} {b}" for a, b in zip(self.labels, options, strict=True))
        return row | {
            "question": f"{row['question']} {shown}",
            "answer": self.labels[options.index(right)],
            "options": options,
            "labels": list(self.labels),
        }

    def _said(self, rng: random.Random, facts: list[str], shape: str, answer: str) -> str:
        rng.shuffle(facts)
        told = " and ".join(facts)
        if self.layout == "think_answer":
            return f"<think>{told}</think><answer>{answer}</answer>"
        return f"<description>{told}</description><think>{shape}</think>\\boxed{{{answer}}}"
