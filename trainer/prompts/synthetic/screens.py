"""Small mock screens with controls to click on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainer.ops.drawing import COLORS, GREY, overlap
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

Control = Literal["square", "circle", "bar"]
_BAR, _TEXT, _PAPER = (58, 56, 54), (92, 88, 80), (245, 245, 242)
_GRID, _UNIT = 14, 6
_SIZE = _GRID * _UNIT


class Screens(Generated):
    """84 x 84 windows on a grid of 14 x 14 units of 6 pixels: a title bar in the first row, below
    it controls of different colours and lines of text.

    `where is the red square ?` has the answer [x1, y1, x2, y2] in grid units. A square and a circle
    are buttons; a bar is a field, white in a coloured frame, as high as a button and 2 to 3 times
    as wide. Columns besides: box, unit (pixels per grid unit), level (controls on the screen),
    items, lines, image_size [width, height], demonstration; `task` is `click`.

    `demonstration` is a careless teacher's `<answer>[x1,y1,x2,y2]</answer>`, drawn anew each epoch.
    """

    controls: Annotated[
        tuple[Control, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(min_length=1),
    ] = ("square", "circle", "bar")
    side: tuple[int, int] = (1, 2)
    """Least and largest height of a control, in grid units."""
    number: tuple[int, int] = (1, 3)
    """Least and most controls on a screen."""
    lines: tuple[int, int] = (0, 3)
    """Least and most lines of text."""
    teacher_jitter: int = Field(2, ge=0)
    """A demonstrated box lies up to this many grid units beside the right one, along each axis."""

    @model_validator(mode="after")
    def _fits(self) -> Screens:
        low, high = self.number
        if not 1 <= low <= high <= 4:
            raise ValueError("number: must be 1 <= low <= high <= 4")
        if not 1 <= self.side[0] <= self.side[1] <= 3:
            raise ValueError("side: must be 1 <= low <= high <= 3")
        if not 0 <= self.lines[0] <= self.lines[1] <= 4:
            raise ValueError("lines: must be 0 <= low <= high <= 4")
        return self

    def make(self, rng: random.Random) -> Row:
        taken: list[list[int]] = []
        items = []
        for color in rng.sample(list(COLORS), rng.randint(*self.number)):
            kind = rng.choice(self.controls)
            side = rng.randint(*self.side)
            width = rng.randint(2 * side, 3 * side) if kind == "bar" else side
            box = _placed(width, side, taken, rng)
            items.append({"kind": kind, "color": color, "box": box})
        lines = [_placed(rng.randint(2, 5), 1, taken, rng) for _ in range(rng.randint(*self.lines))]
        target = rng.choice(items)
        return {
            "question": f"where is the {target['color']} {target['kind']} ?",
            "answer": target["box"],
            "box": target["box"],
            "unit": _UNIT,
            "task": "click",
            "level": len(items),
            "items": items,
            "lines": lines,
            "image_size": [_SIZE, _SIZE],
            "images": None,  # drawn from the items when the prompt is
        }

    def content(self, row: Row) -> Any:
        return row["question"], row["items"], row["lines"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        x1, y1, x2, y2 = row["answer"]
        jitter = self.teacher_jitter
        right = min(max(rng.randint(-jitter, jitter), -x1), _GRID - x2)
        down = min(max(rng.randint(-jitter, jitter), -y1), _GRID - y2)
        moved = x1 + right, y1 + down, x2 + right, y2 + down
        return row | {"demonstration": f"<answer>[{','.join(map(str, moved))}]</answer>"}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (_SIZE, _SIZE), GREY)
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, 0, _SIZE - 1, _UNIT - 1), fill=_BAR)
        pen.rectangle((_SIZE - 5, 2, _SIZE - 4, 3), fill=_PAPER)
        for line in row["lines"]:
            x1, y1, x2, _ = (v * _UNIT for v in line)
            pen.rectangle((x1, y1 + 2, x2 - 1, y1 + 3), fill=_TEXT)
        for item in row["items"]:
            x1, y1, x2, y2 = (v * _UNIT for v in item["box"])
            box, color = (x1, y1, x2 - 1, y2 - 1), COLORS[item["color"]]
            if item["kind"] == "circle":
                pen.ellipse(box, fill=color)
            else:
                inside = _PAPER if item["kind"] == "bar" else color
                pen.rectangle(box, fill=inside, outline=color, width=2)
        return [image]


def _placed(width: int, height: int, taken: list[list[int]], rng: random.Random) -> list[int]:
    """A free place below the title bar, added to `taken`."""
    while True:
        x, y = rng.randint(0, _GRID - width), rng.randint(1, _GRID - height)
        box = [x, y, x + width, y + height]
        if not any(overlap(box, other) for other in taken):
            taken.append(box)
            return box
