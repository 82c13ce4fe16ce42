"""Short clips, frame by frame: when is something to be seen?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.ops.drawing import COLORS, SHAPES, canvas, draw_shape
from trainer.prompts.base import Generated, Row

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


class Clips(Generated):
    """`frames` pictures of 28 x 28 pixels, one a second, each behind its time: `0 <image> 1 <image>
    ... when is the red circle there ?`. From start to end, counted like the times, that shape is
    there; in the other frames another one, or nothing.

    The answer is [start, end] as fractions of the clip. Columns besides: span (seconds),
    video_length (seconds), frame_items, demonstration. `demonstration` is a careless teacher's
    `<think>red circle</think><answer>{"start_time": "2", "end_time": "5"}</answer>`, each end off
    by up to `teacher_jitter` seconds, drawn anew each epoch.
    """

    frames: int = Field(8, ge=2, le=20)
    teacher_jitter: int = Field(2, ge=0)

    def make(self, rng: random.Random) -> Row:
        start = rng.randrange(self.frames)
        end = rng.randint(start + 1, self.frames)
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        other = [
            rng.choice([one for one in COLORS if one != color]),
            rng.choice([one for one in SHAPES if one != shape]),
        ]
        shown = [
            [color, shape] if start <= i < end else rng.choice([other, None])
            for i in range(self.frames)
        ]
        marks = " ".join(f"{i} <image>" for i in range(self.frames))
        return {
            "question": f"{marks} when is the {color} {shape} there ?",
            "answer": [start / self.frames, end / self.frames],
            "span": [start, end],
            "video_length": self.frames,
            "target": f"{color} {shape}",
            "frame_items": shown,
            "images": None,  # drawn from the items when the prompt is
        }

    def content(self, row: Row) -> Any:
        return row["question"], row["frame_items"]

    def drawn(self, row: Row, rng: random.Random) -> Row:
        jitter, last = self.teacher_jitter, self.frames
        start, end = (time + rng.randint(-jitter, jitter) for time in row["span"])
        start = min(max(start, 0), last - 1)
        end = min(max(end, start + 1), last)
        times = f'{{"start_time": "{start}", "end_time": "{end}"}}'
        said = f"<think>{row['target']}</think><answer>{times}</answer>"
        return row | {"demonstration": said}

    def images(self, row: Row, value: Any, where: str, folder: Path) -> list[Image]:
        found = []
        for item in row["frame_items"]:
            image = canvas(1)
            if item is not None:
                color, shape = item
                draw_shape(image, shape, color, (0, 0))
            found.append(image)
        return found
