"""The clipped surrogate of PPO (arXiv 1707.06347), with GRPO's and DAPO's settings as fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class PpoClip(Loss):
    """l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), rho = exp(logp - logp_old).

    Without `old_logprobs` in the batch (one update per batch) rho is exactly 1 and its gradient
    that of logp. At such a first update the loss is close to 0 by construction; its gradient
    is not.
    """

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    clip_low: float = Field(0.2, gt=0, le=1)
    clip_high: float = Field(0.2, gt=0)
    """Higher than `clip_low` (DAPO: 0.28) leaves unlikely tokens more room to grow."""
    dual_clip: float | None = Field(None, gt=1)
    """Where A < 0 the loss is at most -A times this; verl's default is 3, TRL has none."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log rho| before exp, so that no ratio overflows."""

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.filled import filled
        from trainer.ops.surrogate import clipped_surrogate, log_ratio

        bound = self.log_ratio_clamp
        return clipped_surrogate(
            log_ratio(evaluation, batch).clamp(-bound, bound),
            filled(batch.advantages, "advantages"),
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )
