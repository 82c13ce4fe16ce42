"""How well a box in the reply covers the right one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from trainer.ops import boxes
from trainer.ops.text import tag_content
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus

Space = Literal["pixels", "unit", "thousand", "grid"]


class IoU(PointwiseReward):
    """Overlap of the box in the last `<answer>` (or the reply, without one) and the row's box.

    IoU = I / U in [0, 1]; GIoU = IoU - (C - U) / C and DIoU = IoU - d^2 / c^2 are in (-1, 1] and
    mapped to (1 + x) / 2 unless `mapped` is off. Boxes are (x1, y1, x2, y2), half-open, no +1
    pixel. No box, or corners the wrong way round: the floor (0, or -1 if not mapped),
    `unparsable`. The right box is `prompt.answer`, or the column `box`; without any the reward
    does not apply; a wrong one raises. Sources: GIoU arXiv:1902.09630, DIoU arXiv:1911.08287.
    """

    needs = frozenset({"answer|meta.box"})

    kind: Literal["iou", "giou", "diou"] = "iou"
    mapped: bool = True
    """giou, diou: map to [0, 1]."""
    threshold: float | None = Field(None, gt=0, le=1)
    """1 if the (mapped) overlap reaches it, else 0."""
    space: Space = "pixels"
    """Coordinates of the reply: `pixels` of the image; `unit` 0 to 1; `thousand` 0 to 1000;
    `grid` 0 to `grid`."""
    gold_space: Space | None = None
    """Coordinates of the row's box; None: those of the reply. Between `pixels` and another space
    the image's size is needed: from the prompt, or the columns `width` and `height`."""
    grid: float | None = Field(None, gt=0, allow_inf_nan=False)
    pick: Literal["first", "last", "best"] = "last"
    """Which of several boxes counts. `best` invites listing many."""
    sort_corners: bool = False
    """Accept corners the wrong way round."""
    tag: str = "answer"

    @model_validator(mode="after")
    def _grid_belongs(self) -> IoU:
        if ("grid" in (self.space, self.gold_space)) != (self.grid is not None):
            raise ValueError("space: grid and grid go together: give both or neither")
        return self

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        gold = prompt.meta.get("box") if prompt.answer is None else prompt.answer
        if gold is None:
            reason = "the row has neither answer nor box"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        floor = 0.0 if self.mapped or self.kind == "iou" or self.threshold else -1.0
        gold = self._convert(boxes.as_box(gold), prompt)
        tagged = tag_content(rollout.reply, self.tag)
        found = boxes.parse_boxes(rollout.reply if tagged is None else tagged)
        if self.sort_corners:
            found = [boxes.sorted_corners(box) for box in found]
        if self.pick != "best":
            found = found[:1] if self.pick == "first" else found[-1:]
        valid = [box for box in found if boxes.is_valid(box)]
        if not valid:
            reason = "corners out of order" if found else "no box [x1, y1, x2, y2] in the reply"
            return Score(floor, status=ScoreStatus.UNPARSABLE, reason=reason)
        overlap = max(self._overlap(box, gold) for box in valid)
        return overlap if self.threshold is None else overlap >= self.threshold

    def _overlap(self, box: boxes.Box, gold: boxes.Box) -> float:
        value = {"iou": boxes.iou, "giou": boxes.giou, "diou": boxes.diou}[self.kind](box, gold)
        return (1 + value) / 2 if self.mapped and self.kind != "iou" else value

    def _convert(self, gold: boxes.Box, prompt: Prompt) -> boxes.Box:
        """The row's box in the space of the reply."""
        source = self.gold_space or self.space
        if source == self.space:
            return gold
        before, after = self._extent(source, prompt), self._extent(self.space, prompt)
        return boxes.scale_box(gold, [b / a for a, b in zip(before, after, strict=True)])

    def _extent(self, space: Space, prompt: Prompt) -> tuple[float, float]:
        if space == "pixels":
            return image_size(prompt)
        side = {"unit": 1.0, "thousand": 1000.0, "grid": self.grid}[space]
        return side, side


def image_size(prompt: Prompt) -> tuple[float, float]:
    """(width, height) of the prompt's first image; ValueError if nothing tells it."""
    width, height = prompt.meta.get("width"), prompt.meta.get("height")
    if width and height:
        return float(width), float(height)
    for message in prompt.messages:
        content: Any = message.get("content")
        for part in content if isinstance(content, list | tuple) else ():
            size = part.get("size") or getattr(part.get("image"), "size", None)
            if size:
                return float(size[0]), float(size[1])
    raise ValueError("the size of the image is unknown; add the columns width and height")
