"""Small pictures of coloured shapes and bars, with questions that have one answer."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainer.ops.drawing import COLORS, GREY, SHAPES, fill_box, overlap
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

Question = Literal["where", "count", "color", "chart", "describe"]
Form = Literal["answer", "bare", "think"]
_GRID, _UNIT = 14, 6
_SIZE = _GRID * _UNIT
_HIGHEST_BAR = 12
_ACROSS = _GRID - 2  # room for bars


class Shapes(Generated):
    """84 x 84 pictures on a grid of 14 x 14 units of 6 pixels.

    Questions and answers: `where is the red circle ?` [x1, y1, x2, y2] in grid units, `how many
    shapes are there ?` "3", `what color is the circle ?` "red", `how high is the red bar ?` "7" (in
    grid units), `what is in this picture ?` "a red circle and a blue square". `task` is the kind of
    question. Columns besides: kind, level (shapes or bars in the picture), items, image_size
    [width, height], and for `where` box and unit (pixels per grid unit); demonstration.

    `demonstration` is a careless teacher's `<answer>[x1,y1,x2,y2]</answer>`, drawn anew each epoch.
    As `think` it begins with the answer in a sentence: `<think>the circle is red</think>`.
    """

    question: Annotated[
        tuple[Question, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(min_length=1),
    ] = ("where",)
    """One kind, or several that are mixed evenly."""
    shapes: tuple[int, int] | None = None
    """Least and most shapes (bars of a chart); None is 1 for `where` and `color`, 1 or 2 for
    `describe`, 1 to 4 else."""
    side: tuple[int, int] = (4, 7)
    """Least and largest side of a shape, in grid units; `count` uses at most 4."""
    bar_width: tuple[int, int] | None = None
    """Least and most grid units of each bar, which then stand anywhere from left to right; None:
    all are as wide as fits. There are then only 72 charts of one bar, 9 of them held out."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of noise on each pixel, of 255."""
    teacher_error: float = Field(0.5, ge=0, le=1)
    """Share of demonstrations that answer at random (all questions but `where`)."""
    teacher_jitter: int = Field(2, ge=0)
    """Each coordinate of a demonstrated box is off by up to this many grid units."""
    teacher_writes: Annotated[
        tuple[Form, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(min_length=1),
    ] = ("answer",)
    """How demonstrations are written, mixed evenly if several: `answer` in its tag, `bare` without
    one, `think` a sentence before it."""

    @model_validator(mode="after")
    def _fits(self) -> Shapes:
        low, high = self.shapes or (1, 4)
        if not 1 <= low <= high <= len(COLORS):
            raise ValueError(f"shapes: must be 1 <= low <= high <= {len(COLORS)}")
        if not 2 <= self.side[0] <= self.side[1] <= _GRID:
            raise ValueError(f"side: must be 2 <= low <= high <= {_GRID}")
        if self.shapes and (high - 1) * (self.side[0] + 1) ** 2 * 2 > _GRID**2:
            raise ValueError(f"side: {high} shapes of side {self.side[0]} do not fit; lower it")
        if self.bar_width and not 1 <= self.bar_width[0] <= self.bar_width[1] <= _ACROSS:
            raise ValueError(f"bar_width: must be 1 <= low <= high <= {_ACROSS}")
        if self.bar_width and high * (self.bar_width[1] + 1) - 1 > _ACROSS:
            raise ValueError(f"bar_width: {high} of {self.bar_width[1]} do not fit; lower it")
        return self

    def make(self, rng: random.Random) -> Row:
        kind = rng.choice(self.question)
        return self._chart(rng) if kind == "chart" else self._scene(kind, rng)

    def content(self, row: Row) -> Any:
        return row["question"], row["items"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        answer = row["answer"]
        if row["task"] == "where":
            jitter = self.teacher_jitter
            moved = (min(_GRID, max(0, x + rng.randint(-jitter, jitter))) for x in answer)
            answer = f"[{','.join(map(str, moved))}]"
        elif rng.random() < self.teacher_error:
            answer = self._mistake(row, rng)
        form = rng.choice(self.teacher_writes)
        tagged = answer if form == "bare" else f"<answer>{answer}</answer>"
        thought = f"<think>{_thought(row, answer)}</think>" if form == "think" else ""
        return row | {"demonstration": thought + tagged}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        from PIL import Image

        image = Image.new("RGB", (_SIZE, _SIZE), GREY)
        for item in row["items"]:
            x1, y1, x2, y2 = (v * _UNIT for v in item["box"])
            fill_box(image, item["shape"], item["color"], (x1, y1, x2, y2))
        return [self._noisy(image, row) if self.noise else image]

    def _mistake(self, row: Row, rng: random.Random) -> str:
        if row["task"] != "describe":
            return rng.choice(self._answers(row["task"]))
        seen = [item | {"color": rng.choice(list(COLORS))} for item in row["items"]]
        return _described(seen)

    def _answers(self, kind: str) -> list[str]:
        if kind == "color":
            return list(COLORS)
        low, high = (1, _HIGHEST_BAR) if kind == "chart" else self.shapes or (1, 4)
        return [str(i) for i in range(low, high + 1)]

    def _scene(self, kind: str, rng: random.Random) -> Row:
        while True:
            usual = {"count": (1, 4), "describe": (1, 2)}.get(kind, (1, 1))
            number = rng.randint(*(self.shapes or usual))
            items = self._items(kind, number, rng)
            if items is None:
                continue
            target = rng.choice(items)
            shapes = Counter(item["shape"] for item in items)
            if kind != "color" or shapes[target["shape"]] == 1:
                break
        if kind == "where":
            row = {
                "question": f"where is the {target['color']} {target['shape']} ?",
                "answer": target["box"],
                "box": target["box"],
                "unit": _UNIT,
            }
        elif kind == "describe":
            row = {"question": "what is in this picture ?", "answer": _described(items)}
        elif kind == "count":
            row = {"question": "how many shapes are there ?", "answer": str(number)}
        else:
            row = {"question": f"what color is the {target['shape']} ?", "answer": target["color"]}
        return _row(kind, items, row)

    def _items(self, kind: str, number: int, rng: random.Random) -> list[Row] | None:
        """Shapes of different colours that do not touch; None if they do not fit."""
        low, high = self.side
        if kind == "count":
            low, high = min(low, 3), min(high, 4)
        items: list[Row] = []
        for color in rng.sample(list(COLORS), number):
            side = rng.randint(low, high)
            x, y = rng.randint(0, _GRID - side), rng.randint(0, _GRID - side)
            box = [x, y, x + side, y + side]
            if any(overlap(box, item["box"]) for item in items):
                return None
            items.append({"shape": rng.choice(SHAPES), "color": color, "box": box})
        return items

    def _chart(self, rng: random.Random) -> Row:
        number = rng.randint(*(self.shapes or (1, 4)))
        spans = self._spans(number, rng)
        items = []
        for (left, right), color in zip(spans, rng.sample(list(COLORS), number), strict=True):
            height = rng.randint(1, _HIGHEST_BAR)
            box = [left, _GRID - 1 - height, right, _GRID - 1]
            items.append({"shape": "bar", "color": color, "box": box, "height": height})
        target = rng.choice(items)
        question = f"how high is the {target['color']} bar ?"
        return _row("chart", items, {"question": question, "answer": str(target["height"])})

    def _spans(self, number: int, rng: random.Random) -> list[tuple[int, int]]:
        """Left and right side of each bar; no two touch."""
        if self.bar_width is None:
            width = _ACROSS // number - 1 if number > 1 else 4
            return [(left, left + width) for left in range(1, 1 + number * (width + 1), width + 1)]
        widths = [rng.randint(*self.bar_width) for _ in range(number)]
        spare = _ACROSS - sum(widths) - (number - 1)
        moved = sorted(rng.randint(0, spare) for _ in range(number))
        lefts = [1 + i + sum(widths[:i]) + moved[i] for i in range(number)]
        return [(left, left + width) for left, width in zip(lefts, widths, strict=True)]

    def _noisy(self, image: Image, row: Row) -> Image:
        import numpy as np
        from PIL import Image

        from trainer.ops.shuffle import stable_hash

        rng = np.random.default_rng(stable_hash((self.seed, self.content(row))))
        pixels = np.asarray(image) + rng.normal(0, self.noise, (_SIZE, _SIZE, 3))
        return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _described(items: list[Row]) -> str:
    """`a red circle and a blue square`, from left to right."""
    ordered = sorted(items, key=lambda item: item["box"])
    return " and ".join(f"a {item['color']} {item['shape']}" for item in ordered)


def _thought(row: Row, answer: str) -> str:
    """The answer in a sentence: `the circle is red`, `the red bar is 7 high`."""
    subject = row["question"].removesuffix(" ?").partition(" is ")[2]
    return {
        "where": f"{subject} is in {answer}",
        "count": f"there are {answer} shapes",
        "color": f"{subject} is {answer}",
        "chart": f"{subject} is {answer} high",
        "describe": f"this is {answer}",
    }[row["task"]]


def _row(kind: str, items: list[Row], row: Row) -> Row:
    return row | {
        "task": kind,
        "level": len(items),
        "items": items,
        "image_size": [_SIZE, _SIZE],
        "images": None,  # drawn from the items when the prompt is
    }
