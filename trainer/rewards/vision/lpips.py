"""How alike a picture that was rendered from the reply and the right one look to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from trainer.context import RewardContext
from trainer.pictured import PictureReward, lpips_likeness

if TYPE_CHECKING:
    from PIL.Image import Image


class LooksAlike(PictureReward):
    """1 - min(LPIPS, 1), by the weights of `scoring.lpips`, of the picture in
    `rollout.artifacts[artifact]` and the prompt's last image.

    Gates as in `vision/ssim`. For what model-written code draws: `lpips_weight` of `vision/svg` and
    `vision/chart_code`. Source: Zhang et al. 2018 (arXiv:1801.03924).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"images", "lpips"})

    async def likeness(
        self, given: Sequence[Image], right: Image, ctx: RewardContext
    ) -> list[float]:
        return await lpips_likeness(given, right, ctx)
