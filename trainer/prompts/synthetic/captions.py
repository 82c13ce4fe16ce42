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
    r"""A picture of one shape, and `color red and shape circle what is wrong ?` with one of the
    values changed. The answer is the changed phrase, `color red`.

    Columns besides: solution_target (the answer), solution_original, original_caption,
    changed_caption, facts (colour and shape), side (pixels), demonstration. `demonstration` is a
    careless teacher's `<think>green circle</think>\boxed{color red}`: the thought is what is in the
    picture, and with probability `mistakes` any of the phrases is boxed; drawn anew each epoch.
    """

    mistakes: float = Field(0.5, ge=0, le=1)

    def make(self, rng: random.Random) -> Row:
        facts = {"color": rng.choice(list(COLORS)), "shape": rng.choice(SHAPES)}
        name, values = rng.choice([("color", tuple(COLORS)), ("shape", SHAPES)])
        told = facts | {name: rng.choice([one for one in values if one != facts[name]])}
        caption = _caption(told)
        return {
            "question": f"{caption} what is wrong ?",
            "answer": f"{name} {told[name]}",
            "solution_target": f"{name} {told[name]}",
            "solution_original": f"{name} {facts[name]}",
            "original_caption": _caption(facts),
            "changed_caption": caption,
            "facts": list(facts.values()),
            "side": rng.randint(12, 26),
            "images": None,  # drawn from the facts when the prompt is
        }

    def content(self, row: Row) -> Any:
        return row["facts"], row["changed_caption"], row["side"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        said = row["answer"]
        if rng.random() < self.mistakes:
            said = rng.choice(row["changed_caption"].split(" and "))
        shown = f"<think>{' '.join(row['facts'])}</think>\\boxed{{{said}}}"
        return row | {"demonstration": shown}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        color, shape = row["facts"]
        image = canvas(1)
        draw_shape(image, shape, color, (0, 0), row["side"])
        return [image]


def _caption(facts: dict[str, str]) -> str:
    return " and ".join(f"{name} {value}" for name, value in facts.items())
