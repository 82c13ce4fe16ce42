"""What rewards that compare pictures have in common: a gate, and likeness by frozen models."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.context import RewardContext
from trainer.ops.image_similarity import as_array, is_blank, on_white
from trainer.ops.rubric import last_image
from trainer.rewards.base import Reward
from trainer.sandboxed import SandboxedReward
from trainer.types import Group, Prompt, Rollout, Score, ScoreStatus

if TYPE_CHECKING:
    from PIL.Image import Image

ONE_COLOUR = "the picture is of one colour"


async def embedding_likeness(
    given: Sequence[Image], right: Image, ctx: RewardContext, *, mapped: bool
) -> list[float]:
    """max(0, cos(e(x), e(y))), or `mapped` (1 + cos) / 2, e the encoder of `scoring.image_encoder`.
    Vectors that are the same are at 1."""
    target, *vectors = await ctx.embed_images([right, *given])
    found = []
    for vector in vectors:
        cosine = sum(a * b for a, b in zip(vector, target, strict=True))
        cosine = 1.0 if vector == target else min(1.0, max(-1.0, cosine))
        found.append((1 + cosine) / 2 if mapped else max(0.0, cosine))
    return found


async def lpips_likeness(given: Sequence[Image], right: Image, ctx: RewardContext) -> list[float]:
    """1 - min(LPIPS, 1), by the weights of `scoring.lpips`."""
    return [1 - min(distance, 1.0) for distance in await ctx.lpips(given, right)]


def picture_of(rollout: Rollout, artifact: str, *, blank: bool) -> Image | Score:
    """What an agent rendered from the reply, or what a rollout without a picture is worth, or
    without `blank` one with a picture of one colour."""
    image = rollout.artifacts.get(artifact)
    if image is None:
        reason = f"nothing was rendered (no artifact {artifact!r})"
        return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
    if not blank and is_blank(as_array(image)):
        return Score(0.0, reason=ONE_COLOUR)
    return image


def right_picture(prompt: Prompt) -> Image:
    """Raises ValueError for a prompt without one."""
    target = last_image(prompt.messages)
    if target is None:
        raise ValueError("the prompt has no image to compare with")
    return target


class PictureReward(Reward):
    """Compares pictures that an agent left in `rollout.artifacts[artifact]` with the prompt's last
    image, stretched to its size, by a model that runs beside the trainer. Subclasses write
    `likeness` only.

    A rollout without the picture could not be rendered: 0, `unparsable`. A picture of one colour
    is worth 0 unless `blank` allows it.
    """

    artifact: str = "image"
    blank: bool = False

    async def likeness(
        self, given: Sequence[Image], right: Image, ctx: RewardContext
    ) -> list[float]:
        """In [0, 1], one for each picture, in order."""
        raise NotImplementedError

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        target = right_picture(group.prompt)
        seen = await asyncio.to_thread(self._seen, group.rollouts, target)
        given = [one for one in seen if not isinstance(one, Score)]
        found = iter(await self.likeness(given, target, ctx) if given else ())
        return [one if isinstance(one, Score) else Score(next(found)) for one in seen]

    def _seen(self, rollouts: Sequence[Rollout], target: Image) -> list[Image | Score]:
        seen = [picture_of(one, self.artifact, blank=self.blank) for one in rollouts]
        return [one if isinstance(one, Score) else on_white(one, target.size) for one in seen]


class Drawing(SandboxedReward):
    """value = b + (1 - b) sum_k w_k s_k / sum_k w_k, b = `rendered`, over the likenesses s_k that a
    row has. Subclasses draw and measure in a worker, name their `weights`, and end with `compared`.
    Frozen models of `scoring` add `embedding`, max(0, cosine), and `lpips`, 1 - min(LPIPS, 1): the
    worker hands over its picture, nothing is drawn twice.
    """

    remembered: ClassVar[int] = 16

    rendered: float = Field(0.0, ge=0, lt=1)
    """Share of the reward for a picture that renders."""
    embedding_weight: float = Field(0.0, ge=0)
    """Needs `scoring.image_encoder`."""
    embedding_mapped: bool = False
    """(1 + cosine) / 2 in place of max(0, cosine)."""
    lpips_weight: float = Field(0.0, ge=0)
    """Needs `scoring.lpips`."""

    @property
    def weights(self) -> dict[str, float]:
        """Of the parts of a score, by name. A part that a row does not have is left out."""
        return {"embedding": self.embedding_weight, "lpips": self.lpips_weight}

    @property
    def models(self) -> frozenset[str]:
        """For `needs`."""
        asked = {"image_encoder": self.embedding_weight, "lpips": self.lpips_weight}
        return frozenset(name for name, weight in asked.items() if weight)

    def worth(self, parts: dict[str, float | None]) -> float:
        """Raises ValueError where no part with a weight is there."""
        likenesses = [(w, s) for k, w in self.weights.items() if (s := parts.get(k)) is not None]
        total = sum(weight for weight, _ in likenesses)
        if not total:
            raise ValueError("every likeness that this row has is of weight 0")
        similar = sum(weight * value for weight, value in likenesses) / total
        return self.rendered + (1 - self.rendered) * similar

    def compared(self, parts: dict[str, float | None], given: Image, right: Image | None) -> Score:
        """Of a picture that came out; `right` where the row's own had to be drawn too."""
        if not self.models:
            return Score(self.worth(parts), parts=parts)
        shown = {"given": _png(given)} | ({} if right is None else {"right": _png(right)})
        return Score(0.0, parts=parts, artifacts=shown)

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        scores = await ctx.isolate(self, group)
        drawn = [score for score in scores if score.artifacts]
        if drawn:
            right, given = await asyncio.to_thread(_pictures, drawn, group.prompt)
            found: dict[str, list[float]] = {}
            if self.embedding_weight:
                found["embedding"] = await embedding_likeness(
                    given, right, ctx, mapped=self.embedding_mapped
                )
            if self.lpips_weight:
                found["lpips"] = await lpips_likeness(given, right, ctx)
            for place, score in enumerate(drawn):
                score.parts |= {name: values[place] for name, values in found.items()}
                score.value = self.worth(score.parts)
        return scores


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _pictures(drawn: Sequence[Score], prompt: Prompt) -> tuple[Image, list[Image]]:
    """The right picture, and those that came out, stretched to its size."""
    shown = drawn[0].artifacts.get("right")
    right = right_picture(prompt) if shown is None else _opened(shown)
    return right, [on_white(_opened(score.artifacts["given"]), right.size) for score in drawn]


def _opened(png: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(png), formats=["PNG"])
