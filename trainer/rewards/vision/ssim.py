"""How like the prompt's picture is one that an agent rendered from the reply."""

from __future__ import annotations

from typing import Any, Literal

from trainer.ops import image_similarity as alike
from trainer.ops.rubric import last_image
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


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

        image = rollout.artifacts.get(self.artifact)
        if image is None:
            reason = f"nothing was rendered (no artifact {self.artifact!r})"
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
        target = last_image(prompt.messages)
        if target is None:
            raise ValueError("the prompt has no image to compare with")
        right, given = alike.as_array(target), alike.as_array(image, target.size)
        if not self.blank and alike.is_blank(given):
            return Score(0.0, reason="the picture is of one colour")
        value = self._value(given, right)
        if self.against_white:
            white = self._value(np.ones_like(right), right)
            value = (value - white) / (1 - white) if white < 1 else value
        return max(0.0, value)

    def _value(self, given: Any, right: Any) -> float:
        if self.kind == "ssim":
            return alike.ssim(given, right, windowed=self.windowed)
        return 1 - alike.mse(given, right) if self.kind == "mse" else alike.psnr(given, right) / 50
