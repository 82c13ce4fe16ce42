"""Two pictures of the same row of shapes: what has changed?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.ops.drawing import COLORS, SHAPES, canvas, draw_shape
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

_VALUES = {"color": tuple(COLORS), "shape": SHAPES}


class Changes(Generated):
    """`<image> <image> what has changed ?`, two pictures of `objects` shapes in a row, and an
    answer of (index, attribute, new value) for each change, from left to right: `[(0,color,red),
    (2,shape,circle)]`. Columns besides: before and after (lists of {color, shape}), demonstration.

    `demonstration` is a careless teacher's, drawn anew each epoch: each change is left out with
    probability `misses`, else its value is wrong with probability `mistakes`; with probability
    `invents` there is one more.
    """

    objects: int = Field(3, ge=1, le=9)
    changes: tuple[int, int] = (1, 2)
    """Least and most."""
    misses: float = Field(0.2, ge=0, le=1)
    mistakes: float = Field(0.3, ge=0, le=1)
    invents: float = Field(0.3, ge=0, le=1)

    def make(self, rng: random.Random) -> Row:
        before = [
            {name: rng.choice(values) for name, values in _VALUES.items()}
            for _ in range(self.objects)
        ]
        places = [(i, name) for i in range(self.objects) for name in _VALUES]
        chosen = sorted(rng.sample(places, rng.randint(*self.changes)))
        after = [dict(item) for item in before]
        answer = []
        for i, name in chosen:
            after[i][name] = rng.choice([v for v in _VALUES[name] if v != before[i][name]])
            answer.append([i, name, after[i][name]])
        return {
            "question": "<image> <image> what has changed ?",
            "answer": answer,
            "before": before,
            "after": after,
            "images": None,  # drawn from the items when the prompt is
        }

    def content(self, row: Row) -> Any:
        return row["before"], row["after"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        said = []
        for i, name, value in row["answer"]:
            if rng.random() >= self.misses:
                wrong = rng.random() < self.mistakes
                said.append([i, name, rng.choice(_VALUES[name]) if wrong else value])
        if rng.random() < self.invents:
            name = rng.choice(list(_VALUES))
            said.append([rng.randrange(self.objects), name, rng.choice(_VALUES[name])])
        listed = ",".join(f"({i},{name},{value})" for i, name, value in sorted(said))
        seen = " ".join(f"{item['color']} {item['shape']}" for item in row["before"] + row["after"])
        return row | {"demonstration": f"<think>{seen}</think><answer>[{listed}]</answer>"}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        found = []
        for items in (row["before"], row["after"]):
            image = canvas(self.objects)
            for i, item in enumerate(items):
                draw_shape(image, item["shape"], item["color"], (i, 0))
            found.append(image)
        return found
