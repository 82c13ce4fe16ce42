"""Geometric-mean policy optimisation (arXiv 2507.20673)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Gmpo(Loss):
    """l = -A r at every action of the row, r = exp(mean over its actions of x_t), with
    d_t = logp - logp_old clipped on one side before averaging: x_t = min(d_t, clip_high) where
    A > 0, max(d_t, -clip_low) where A < 0. A is the row's mean advantage.

    GSPO clips the mean and drops whole rows; here only the actions that are clipped lose their
    gradient. Do not use advantages that vary inside an answer. A row without actions has A = 0
    and, as in the official code, counts in the mean over rows. For rollout correction take `tis`
    with `mode: sequence_truncate`: its geometric mean is one weight per row.
    """

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    clip_low: float = Field(0.4, gt=0)
    """In logarithms: ratios stay above exp(-clip_low). PPO's numbers fit only roughly."""
    clip_high: float = Field(0.4, gt=0)
    """In logarithms: ratios stay below exp(clip_high)."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |d_t| on the side that is not clipped."""
    aggregation: Literal["seq_mean_token_mean"] = "seq_mean_token_mean"
    """No other: the loss is defined for whole rows."""
    count_empty_rows: bool = True
    """Rows without any action count in the mean."""

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from trainer.ops.filled import filled
        from trainer.ops.surrogate import log_ratio, ratio_metrics, row_mean

        mask, bound = batch.mask, self.log_ratio_clamp
        advantage = row_mean(filled(batch.advantages, "advantages"), mask)
        each = log_ratio(evaluation, batch).clamp(-bound, bound)
        up, down = advantage > 0, advantage < 0
        clipped = torch.where(up, each.clamp(max=self.clip_high), 0.0)
        clipped = torch.where(down, each.clamp(min=-self.clip_low), clipped)
        row = row_mean(clipped, mask).expand_as(each)
        low, high = down & (each < -self.clip_low), up & (each > self.clip_high)
        return -advantage * row.exp(), ratio_metrics(row, low, high)
