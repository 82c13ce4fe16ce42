"""How like the right chart is the one that written plotting code draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from trainer.ops import chart_driver
from trainer.ops import image_similarity as alike
from trainer.ops.chart_attributes import Drawn, read_drawn, shared
from trainer.ops.code_blocks import program
from trainer.ops.fork_server import First
from trainer.ops.parsing import Unparsable
from trainer.ops.rubric import last_image
from trainer.ops.sandbox import Outcome, Sandbox
from trainer.pictured import ONE_COLOUR, Drawing
from trainer.rewards.base import Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus

FENCES = ("python", "py", "python3")


class ChartCode(Drawing):
    """b + (1 - b) sum_k w_k s_k / sum_k w_k, b = `rendered`, of S_attr, S_vis and the likenesses by
    frozen models: embedding, max(0, cosine), and lpips, 1 - min(LPIPS, 1).

    S_attr: mean Jaccard index of texts, values, layout and colours of the two matplotlib figures.
    S_vis: max(0, SSIM) of the pictures, stretched to the size of the right one. Code that fails,
    or draws nothing or one colour: 0. No code: 0, `unparsable`. The right chart is drawn by the
    row's code (column `code`, or `answer`) in a sandbox of its own; a row with a picture only, the
    prompt's last, has no attributes. The reply's code says itself which attributes its figure has:
    it could claim others, but does not know which. Parts: `attributes`, `ssim`, each index.

    After ChartMaster's ChartSimRL, of which only summaries were read: it compares feature maps of a
    ResNet-18 where this has SSIM, and its weights are not known. `rendered` and the gates are of
    the common render-and-compare pipeline.
    """

    driver = chart_driver
    runs = 2  # the right chart too, for the first rollout of a row

    column: str = "code"
    """Column with the right code; empty there: `answer`."""
    rendered: float = Field(0.0, ge=0, lt=1)
    """Share of the reward for drawing anything at all."""
    attribute_weight: float = Field(0.5, ge=0)
    visual_weight: float = Field(0.5, ge=0)
    value_tolerance: float = Field(0.05, ge=0)
    """Relative difference at which two numbers are the same."""
    against_white: bool = True
    """(s - s_white) / (1 - s_white) for SSIM: most of a chart is white."""
    inches: float = Field(20.0, gt=0)
    """Longest side of a figure."""
    dpi: int = Field(80, ge=20, le=300)
    sandbox: Sandbox = Sandbox(seconds=6, memory_mb=3072, output_kb=8192)
    """Where bubblewrap is the wall, importing matplotlib takes a second or more of `seconds`."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"meta.{self.column}|answer|images"}) | self.models

    @property
    def weights(self) -> dict[str, float]:
        own = {"attributes": self.attribute_weight, "ssim": self.visual_weight}
        return super().weights | own

    @model_validator(mode="after")
    def _weighted(self) -> ChartCode:
        if not any(self.weights.values()):
            names = "attribute_weight, visual_weight, embedding_weight and lpips_weight"
            raise ValueError(f"{names} are all 0; raise one of them")
        return self

    def first(self) -> First:
        fonts = self._fonts()
        return replace(super().first(), given=str(fonts) if fonts else None, packages=True)

    def _fonts(self) -> Path | None:
        """matplotlib's cache of them."""
        import matplotlib as mpl
        from matplotlib import font_manager  # writes it

        name = f"fontlist-v{font_manager.FontManager.__version__}.json"
        fonts = Path(mpl.get_cachedir(), name)
        return fonts if fonts.is_file() else None

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = self._expected(prompt)
        if right is None:
            reason = f"the row has neither {self.column}, answer nor an image"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        try:
            code = program(rollout.reply, FENCES)
        except Unparsable as error:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=str(error))
        given = self.once(("reply", code), lambda: self._given(code))
        if isinstance(given, str):
            return Score(0.0, reason=given)
        target = alike.as_array(right.image)
        picture = alike.as_array(given.image, right.image.size)
        if alike.is_blank(picture):
            return Score(0.0, reason=ONE_COLOUR)
        parts: dict[str, float | None] = {
            "ssim": alike.ssim_of(picture, target, against_white=self.against_white)
        }
        if right.layout or right.texts:
            indices = shared(given, right, self.value_tolerance)
            parts |= indices | {"attributes": sum(indices.values()) / len(indices)}
        return self.compared(parts, given.image, right.image if self._coded(prompt) else None)

    def _coded(self, prompt: Prompt) -> Any:
        code = prompt.meta.get(self.column)
        return prompt.answer if code is None else code

    def _expected(self, prompt: Prompt) -> Drawn | None:
        code = self._coded(prompt)
        if code is None:
            image = last_image(prompt.messages)
            return None if image is None else Drawn(image)
        return self.once(("right", code), lambda: self._right(code))

    def _right(self, code: str) -> Drawn:
        try:
            return read_drawn(self._draw(program(code, FENCES, require=False)).result)
        except (Unparsable, ValueError) as error:
            raise ValueError(f"the row's own code draws no chart: {error}") from None

    def _given(self, code: str) -> Drawn | str:
        """The chart, or why there is none."""
        done = self._draw(code)
        try:
            return read_drawn(done.result)
        except ValueError as error:
            return done.reason or str(error)

    def _draw(self, code: str) -> Outcome:
        fonts = self._fonts()
        request: dict[str, Any] = {"code": code, "inches": self.inches, "dpi": self.dpi}
        request["fonts"] = self.cell.inside(fonts) if fonts else None
        shows = (fonts,) if fonts else ()
        return self.drive(request, packages=True, shows=shows)
