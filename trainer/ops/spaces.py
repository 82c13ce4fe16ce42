"""Coordinate spaces of boxes and points, and how Qwen's image processors resize.

`pixels`: of the image as the data set holds it. `resized`: of the image as the model sees it
(Qwen2.5-VL answers in these). `unit`: 0 to 1. `thousand`: 0 to 1000 (Qwen2-VL, Qwen3-VL).
`grid`: 0 to a number of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, model_validator

from trainer.ops.parsing import Unparsable
from trainer.plugin import Frozen

if TYPE_CHECKING:
    from trainer.types import Prompt, Rollout

Space = Literal["pixels", "resized", "unit", "thousand", "grid"]
SPACES = get_args(Space)
Size = tuple[float, float]


class Resize(Frozen):
    """How an image processor of the Qwen2-VL family resizes."""

    factor: int = Field(28, gt=0)
    """Sides become multiples of it: patch size times merge size. Qwen3-VL: 32."""
    min_pixels: int = Field(3136, gt=0)
    max_pixels: int = Field(12845056, gt=0)
    """Least and most pixels of the result."""

    @model_validator(mode="after")
    def _ordered(self) -> Resize:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self

    def size(self, width: float, height: float) -> Size:
        """(width, height) after resizing: the nearest multiples of the factor, then shrunk or
        grown with the same proportions into the limits. Needs sides of at least 1, and a ratio of
        at most 200, as the processor does."""
        if min(width, height) < 1 or max(width, height) / min(width, height) > 200:
            raise ValueError(f"an image of {width} x {height} cannot be resized: ratio above 200")
        sides = [round(side / self.factor) * self.factor for side in (width, height)]
        area = sides[0] * sides[1]
        if area > self.max_pixels:
            scale = math.sqrt(width * height / self.max_pixels)
            cut = [math.floor(side / scale / self.factor) for side in (width, height)]
            sides = [max(1, units) * self.factor for units in cut]
        elif area < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (width * height))
            sides = [
                math.ceil(side * scale / self.factor) * self.factor for side in (width, height)
            ]
        return float(sides[0]), float(sides[1])


@dataclass(frozen=True, slots=True)
class Extents:
    """How far each space reaches, for one image; what is not known is asked for only when it is
    needed."""

    prompt: Prompt
    rollout: Rollout | None = None
    grid: float | None = None
    resize: Resize | None = None

    def of(self, space: str) -> Size:
        """(width, height) of a space; ValueError if nothing tells it."""
        if space == "pixels":
            return image_size(self.prompt)
        if space == "resized":
            return self._resized()
        side = {"unit": 1.0, "thousand": 1000.0, "grid": self.grid}.get(space)
        if side is None:
            raise ValueError(f"unknown space {space!r}; one of: {', '.join(SPACES)}")
        return side, side

    def factors(self, source: str, target: str) -> Size:
        """What x and y are multiplied by on the way from one space to another."""
        if source == target:
            return 1.0, 1.0
        before, after = self.of(source), self.of(target)
        return after[0] / before[0], after[1] / before[1]

    def _resized(self) -> Size:
        sizes = self.rollout.meta.get("image_sizes") if self.rollout else None
        if sizes:
            return _size(*sizes[0], "image_sizes")
        if self.resize is None:
            raise ValueError(
                "the size of the resized image is unknown: no rollout recorded it; set `resize` "
                "to the processor's factor, min_pixels and max_pixels"
            )
        return self.resize.size(*image_size(self.prompt))


def image_size(prompt: Prompt) -> Size:
    """(width, height) of the prompt's first image: of the columns `width` and `height`, or of the
    image itself. ValueError if nothing tells it, or if they differ."""
    width, height = prompt.meta.get("width"), prompt.meta.get("height")
    told = _size(width, height, "the columns width and height") if width and height else None
    real = _real_size(prompt)
    if told and real and told != real:
        raise ValueError(
            f"the columns width and height say {told[0]:g} x {told[1]:g}, the image is "
            f"{real[0]:g} x {real[1]:g}; correct the row, or drop the columns"
        )
    size = told or real
    if size is None:
        raise ValueError("the size of the image is unknown; add the columns width and height")
    return size


def _real_size(prompt: Prompt) -> Size | None:
    for message in prompt.messages:
        content: Any = message.get("content")
        for part in content if isinstance(content, list | tuple) else ():
            size = part.get("size") or getattr(part.get("image"), "size", None)
            if size:
                return _size(size[0], size[1], "the image's size")
    return None


def _size(width: Any, height: Any, where: str) -> Size:
    try:
        size = float(width), float(height)
    except (TypeError, ValueError):
        size = math.nan, math.nan
    if not all(math.isfinite(side) and side > 0 for side in size):
        raise ValueError(f"{where}: must be positive numbers, got {width!r} and {height!r}")
    return size


def inside(box: Sequence[float], extent: Size, slack: float = 1e-6) -> bool:
    """Whether x and y of a box or point (x, y, x, y, ...) lie in [0, width] x [0, height]."""
    return all(
        -slack * extent[i % 2] <= value <= (1 + slack) * extent[i % 2]
        for i, value in enumerate(box)
    )


class Located(Frozen):
    """Fields of a reward that reads coordinates, and the ways between its spaces."""

    space: Space = "pixels"
    """Coordinates of the reply: `pixels` of the data set's image; `resized` pixels of the image
    as the model sees it; `unit` 0 to 1; `thousand` 0 to 1000; `grid` 0 to `grid`."""
    gold_space: Space | None = None
    """Coordinates of the row; None: those of the reply. Pixels of the data set's image need its
    size: from the image, or the columns `width` and `height`."""
    space_column: str | None = None
    """Column that names the row's own space, where it has one: goes before `gold_space`."""
    grid: float | None = Field(None, gt=0, allow_inf_nan=False)
    resize: Resize | None = None
    """How the processor resizes, for `resized` where no rollout recorded the real size."""
    outside: Literal["keep", "clip", "refuse"] = "keep"
    """Of a box or point that leaves the image: taken as it is, cut, or unparsable."""

    @model_validator(mode="after")
    def _grid_belongs(self) -> Located:
        if ("grid" in (self.space, self.gold_space)) != (self.grid is not None):
            raise ValueError("space: grid and grid go together: give both or neither")
        return self

    def extents(self, rollout: Rollout, prompt: Prompt) -> Extents:
        return Extents(prompt, rollout, self.grid, self.resize)

    def space_of(self, prompt: Prompt) -> str:
        """The space of the row's coordinates."""
        told = prompt.meta.get(self.space_column) if self.space_column else None
        return str(told) if told is not None else self.gold_space or self.space

    def factors(self, rollout: Rollout, prompt: Prompt) -> tuple[float, float]:
        """What the row's x and y are multiplied by to be in the reply's space."""
        source = self.space_of(prompt)
        return self.extents(rollout, prompt).factors(source, self.space)

    def admitted(
        self, points: Sequence[float], rollout: Rollout, prompt: Prompt
    ) -> tuple[float, ...]:
        """A box (x1, y1, x2, y2) or point (x, y) of the reply, after `outside`."""
        if self.outside == "keep":
            return tuple(points)
        extent = self.extents(rollout, prompt).of(self.space)
        if inside(points, extent):
            return tuple(points)
        if self.outside == "refuse":
            shown = [round(value, 2) for value in points]
            raise Unparsable(f"{shown} is outside of the image, {extent[0]:g} x {extent[1]:g}")
        return tuple(min(max(v, 0.0), extent[i % 2]) for i, v in enumerate(points))
