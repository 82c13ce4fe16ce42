"""Rejection of actions or rows that the engine sampled from another policy (verl)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class Rejection(Modifier):
    """Takes what fails a test out of the mask: out of every term, and out of the denominators.

    With d_t = logp_old - logp_engine the statistic is made of k1 = -d, k2 = d^2 / 2 or
    k3 = exp(d) - 1 - d: of each action, or over a row as sum, mean or max. k1 passes where
    log(low) <= k1 <= log(high), k2 and k3 where they are at most `high`. k1 is the logarithm of
    engine over policy: its bounds are on the inverse of the ratio that `tis` bounds. Several of
    these modifiers must all pass. The share that fails is reported as
    `rejected_<level>_<statistic>`. `tis` weighs what is left; its masks keep the denominator.

    Source: verl `rollout_corr_helper`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"sampled_logprobs", "old_logprobs"})

    statistic: Literal["k1", "k2", "k3"] = "k1"
    level: Literal["token", "sequence"] = "sequence"
    aggregate: Literal["mean", "sum", "max"] = "mean"
    """Over a row, at `sequence`."""
    high: float = Field(2.0, gt=0)
    """For k1 a ratio, for k2 and k3 a bound of the value. verl has no default."""
    low: float | None = Field(None, gt=0)
    """Of k1, a ratio; None: 1 / high."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |d_t|."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> Rejection:
        if self.statistic != "k1":
            if self.low is not None:
                raise ValueError(f"low: {self.statistic} is never negative; give `high` alone")
        elif self._low >= self.high:
            raise ValueError(f"low = {self._low:g} must be below high = {self.high:g}")
        return self

    @property
    def changes_loss(self) -> bool:
        return False

    @property
    def _low(self) -> float:
        return 1 / self.high if self.low is None else self.low

    def passes(self, log_ratio: Tensor, mask: Tensor) -> Tensor:
        """b[B, T] from d f[B, T]; False outside `mask` b[B, T]."""
        import torch

        from trainer.ops.surrogate import row_mean

        bound = self.log_ratio_clamp
        d = torch.where(mask, log_ratio, 0.0).clamp(-bound, bound)
        if self.statistic == "k1":
            value = -d
        else:
            value = d**2 / 2 if self.statistic == "k2" else d.exp() - 1 - d
        if self.level == "sequence":
            if self.aggregate == "max":
                value = value.masked_fill(~mask, -math.inf).amax(-1, keepdim=True)
            elif self.aggregate == "sum":
                value = (value * mask).sum(-1, keepdim=True)
            else:
                value = row_mean(value, mask)
        if self.statistic == "k1":
            good = (value >= math.log(self._low)) & (value <= math.log(self.high))
        else:
            good = value <= self.high
        return mask & good

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        import torch

        from trainer.ops.filled import filled

        old = filled(batch.old_logprobs, "old_logprobs")
        passed = self.passes(old - batch.sampled_logprobs, batch.mask)
        both = torch.stack([(m * batch.weight).double().sum() for m in (passed, batch.mask)])
        kept, actions = across.sum(both).tolist()
        share = torch.full_like(batch.weight, 1 - kept / actions if actions else 0.0)
        return batch.with_(mask=passed, extra=batch.extra | {self._key: share})

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return per_action, {self._key: batch.extra[self._key]}

    @property
    def _key(self) -> str:
        return f"rejected_{self.level}_{self.statistic}"
