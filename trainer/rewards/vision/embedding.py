"""How near the features of a picture that was rendered from the reply are to the right one's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from trainer.context import RewardContext
from trainer.pictured import PictureReward, embedding_likeness

if TYPE_CHECKING:
    from PIL.Image import Image


class Embedding(PictureReward):
    """max(0, cos(e(x), e(y))), or `mapped` (1 + cos) / 2, of the picture x in
    `rollout.artifacts[artifact]` and the prompt's last image y; e: `scoring.image_encoder`.

    A shift by a pixel, which SSIM takes for another picture, changes little here. Gates as in
    `vision/ssim`. For what model-written code draws: `embedding_weight` of `vision/svg` and
    `vision/chart_code`. Source: cosine of DINOv2 (arXiv:2304.07193) or CLIP features.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"images", "image_encoder"})

    mapped: bool = False

    async def likeness(
        self, given: Sequence[Image], right: Image, ctx: RewardContext
    ) -> list[float]:
        return await embedding_likeness(given, right, ctx, mapped=self.mapped)
