"""CISPO (MiniMax-M1, arXiv 2506.13585; ScaleRL, arXiv 2510.13786): a clipped weight without
gradient in place of a clipped surrogate."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Cispo(Loss):
    """l = -w A logp, w = rho brought into [is_weight_min, is_weight_max] and without gradient,
    rho = exp(logp - logp_old): no action loses its gradient by being clipped.

    With `ppo_mask` w is 0 where PPO would give no gradient: A > 0 and rho > is_weight_max, or A < 0
    and rho < is_weight_min. On policy w = 1 and this is `reinforce`. The value of the loss is no
    measure of progress.
    """

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    is_weight_max: float = Field(5.0, gt=0)
    """Absolute cap of w: TRL's `epsilon_high` (ScaleRL: 5), verl's 1 + `clip_ratio_high`."""
    is_weight_min: float | None = Field(None, ge=0)
    """Absolute floor of w; None: off, as in the paper."""
    ppo_mask: bool = False
    """The paper's mask M."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log rho| before exp."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> Cispo:
        if self.is_weight_min is not None and self.is_weight_min >= self.is_weight_max:
            raise ValueError(
                f"is_weight_min = {self.is_weight_min:g} must be below "
                f"is_weight_max = {self.is_weight_max:g}: both bound the weight itself, not its "
                "distance from 1"
            )
        return self

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.filled import filled
        from trainer.ops.surrogate import log_ratio, ratio_metrics

        advantages = filled(batch.advantages, "advantages")
        bound = self.log_ratio_clamp
        log_rho = log_ratio(evaluation, batch).detach().clamp(-bound, bound)
        ratio, floor = log_rho.exp(), self.is_weight_min or 0.0
        low, high = ratio < floor, ratio > self.is_weight_max
        weight = ratio.clamp(floor, self.is_weight_max)
        if self.ppo_mask:
            low, high = low & (advantages < 0), high & (advantages > 0)
            weight = weight.masked_fill(low | high, 0.0)
        metrics = ratio_metrics(log_rho, low, high) | {"is_weight": weight}
        return -weight * advantages * evaluation.logprobs, metrics
