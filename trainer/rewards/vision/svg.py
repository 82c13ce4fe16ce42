"""How like the right picture is a written SVG."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from trainer.errors import MissingService
from trainer.ops import image_similarity as alike
from trainer.ops import svg_driver
from trainer.ops.fork_server import NOTHING, First
from trainer.ops.parsing import Unparsable
from trainer.ops.rubric import last_image
from trainer.ops.sandbox import Cell, Sandbox
from trainer.ops.svg import brevity, colours, forbidden, set_f1, svg_in
from trainer.pictured import ONE_COLOUR, Drawing
from trainer.rewards.base import Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Svg(Drawing):
    """b + (1 - b) sum_k w_k s_k / sum_k w_k, b = `rendered`, of ssim: max(0, SSIM) of the pictures;
    embedding: max(0, cosine) of their features; lpips: 1 - min(LPIPS, 1); colour: F1 of the sets of
    hexadecimal colours; length: max(0, 1 - characters / longest).

    The right picture is the column `svg`, rendered, or the prompt's last image, which has no
    colours to compare: that weight is then left out. An SVG with a forbidden element, an entity or
    a reference to something outside, one that does not render, or renders to one colour: 0. No SVG:
    0, `unparsable`. Rendered in the sandbox by resvg-py (`pip install resvg-py`).

    Source: the common render-and-compare pipeline of Visual-ERM and SGP-RL; the form in [0, 1] is
    ours.
    """

    driver = svg_driver
    runs = 2  # the right picture too, for the first rollout of a row

    column: str = "svg"
    rendered: float = Field(0.5, ge=0, lt=1)
    """Share of the reward for a picture that renders."""
    ssim_weight: float = Field(1.0, ge=0)
    colour_weight: float = Field(0.0, ge=0)
    length_weight: float = Field(0.0, ge=0)
    longest: int = Field(6000, ge=1)
    """Characters at which `length` is 0, blanks and comments not counted."""
    most_characters: int = Field(100_000, ge=1)
    """A longer SVG is worth 0."""
    forbid: tuple[str, ...] = ("script", "foreignObject", "image", "text", "tspan", "textPath")
    """Elements. Letters can spell out the prompt instead of drawing it."""
    canvas: int = Field(672, ge=16, le=2048)
    """Longest side of the rendering of the right SVG; an image keeps its own size."""
    against_white: bool = False
    """(s - s_white) / (1 - s_white) for SSIM."""
    sandbox: Sandbox = Sandbox(seconds=2, output_kb=8192)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"meta.{self.column}|images"}) | self.models

    @property
    def weights(self) -> dict[str, float]:
        own = {"ssim": self.ssim_weight, "length": self.length_weight, "colour": self.colour_weight}
        return super().weights | own

    @model_validator(mode="after")
    def _weighted(self) -> Svg:
        if not any(weight for name, weight in self.weights.items() if name != "colour"):
            raise ValueError(
                "ssim_weight, embedding_weight, lpips_weight and length_weight are all 0; raise one"
            )
        return self

    def proven(self, first: First = NOTHING) -> Cell:
        self._renderer()
        return super().proven(first)

    def first(self) -> First:
        return replace(super().first(), given=str(self._renderer().parent))

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        gold = prompt.meta.get(self.column)
        if gold is None:
            target = last_image(prompt.messages)
        else:
            target = self.once(str(gold), lambda: self._right(str(gold)))
        if target is None:
            reason = f"the row has neither {self.column} nor an image"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        try:
            svg = svg_in(rollout.reply)
        except Unparsable as error:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=str(error))
        if len(svg) > self.most_characters:
            return Score(0.0, reason=f"longer than {self.most_characters} characters")
        if held := forbidden(svg, self.forbid):
            return Score(0.0, reason=f"holds {held}")
        picture = self.once((svg, target.size), lambda: self._render(svg, target.size))
        if isinstance(picture, str):
            return Score(0.0, reason=picture)
        given, right = alike.as_array(picture, target.size), alike.as_array(target)
        if alike.is_blank(given):
            return Score(0.0, reason=ONE_COLOUR)
        parts: dict[str, float | None] = {
            "ssim": alike.ssim_of(given, right, against_white=self.against_white),
            "length": brevity(svg, self.longest),
        }
        if gold is not None:
            parts["colour"] = set_f1(colours(svg), colours(str(gold)))
        return self.compared(parts, picture, None if gold is None else target)

    def _right(self, svg: str) -> Any:
        target = self._render(svg, None)
        if isinstance(target, str):
            raise ValueError(f"{self.column} of the row does not render: {target}")
        return target

    def _renderer(self) -> Path:
        found = importlib.util.find_spec("resvg_py")
        if found is None or not found.submodule_search_locations:
            raise MissingService("vision/svg renders with resvg-py: pip install resvg-py")
        return Path(next(iter(found.submodule_search_locations)))

    def _render(self, svg: str, size: tuple[int, int] | None) -> Any:
        """The picture, or why there is none."""
        from PIL import Image

        package = self._renderer()
        width, height = size or (self.canvas, self.canvas)
        request = {"svg": svg, "width": width, "height": height}
        request["folder"] = str(Path(self.cell.inside(package)).parent)
        done = self.drive(request, shows=(package,))
        if not done.fine:
            return done.reason
        try:
            return Image.open(io.BytesIO(done.result), formats=["PNG"]).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return f"no picture came back ({type(error).__name__})"
