"""How like the prompt's picture is one that an agent rendered from the reply."""

from __future__ import annotations

from typing import Any, Literal

from trainer.ops import image_similarity as alike
from trainer.pictured import picture_of, right_picture
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score


class Ssim(PointwiseReward):
    """ssim max(0, SSIM); mse 1 - MSE; psnr PSNR / 50 dB, of the picture in
    `rollout.artifacts[artifact]` and the prompt's last image, stretched to its size.

    A rollout without the picture could not be rendered: 0, `unparsable`. A picture of one colour
    is worth 0 unless `blank` allows it: on documents a white page may reach 0.8. `against_white`
    takes (s - s_white) / (1 - s_white) instead. Source: SSIM, Wang et al. 2004.
    """

    needs = frozenset({"images"})

    kind: Literal["ssim", "mse", "psnr"] = "ssim"
    artifact: str = "image"
    blank: bool = False
    against_white: bool = False
    windowed: bool = True
    """ssim: with the 11 x 11 Gaussian window; off: over the whole picture at once."""

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        import numpy as np

        target = right_picture(prompt)
        image = picture_of(rollout, self.artifact, blank=self.blank)
        if isinstance(image, Score):
            return image
        right, given = alike.as_array(target), alike.as_array(image, target.size)
        value = self._value(given, right)
        if self.against_white:
            white = self._value(np.ones_like(right), right)
            value = (value - white) / (1 - white) if white < 1 else value
        return max(0.0, value)

    def _value(self, given: Any, right: Any) -> float:
        if self.kind == "ssim":
            return alike.ssim(given, right, windowed=self.windowed)
        return 1 - alike.mse(given, right) if self.kind == "mse" else alike.psnr(given, right) / 50
