"""Variational sequence-level soft policy optimisation (arXiv 2602.10693, as TRL computes it)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Vespo(Loss):
    """l = -phi(w) A logp, phi(w) = w^k exp(lambda (1 - w)) without gradient, w = the product of
    exp(logp - logp_old) over the row; k and lambda by the sign of A. phi(1) = 1, so that on policy
    this is `reinforce`; phi fades as w goes to 0 or grows.
    """

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    k_pos: float = Field(2.0, ge=0)
    lambda_pos: float = Field(3.0, gt=0)
    """Where A >= 0, as `k_pos`."""
    k_neg: float = Field(3.0, ge=0)
    lambda_neg: float = Field(2.0, gt=0)
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log rho| of an action and, above, of log w."""

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import math

        import torch

        from trainer.ops.filled import filled
        from trainer.ops.surrogate import log_ratio, ratio_metrics

        advantages, bound = filled(batch.advantages, "advantages"), self.log_ratio_clamp
        each = log_ratio(evaluation, batch).detach().clamp(-bound, bound)
        row = each.sum(-1, keepdim=True).clamp(math.log(1e-8), bound).expand_as(each)
        positive = advantages >= 0
        k = torch.where(positive, self.k_pos, self.k_neg).to(row.dtype)
        rate = torch.where(positive, self.lambda_pos, self.lambda_neg).to(row.dtype)
        weight = (rate + k * row - rate * row.exp()).exp()
        # What fades by more than a half is this loss's "clipped".
        faded = weight < 0.5
        metrics = ratio_metrics(row, faded & (row < 0), faded & (row > 0))
        return -weight * advantages * evaluation.logprobs, metrics | {"is_weight": weight}
