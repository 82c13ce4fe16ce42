"""KL-Cov ("The entropy mechanism of RL for reasoning", arXiv 2505.22617)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class KlCov(Loss):
    """l = -A rho, rho = exp(logp - logp_old), never clipped; plus coef |logp - logp_old| at the
    max(1, int(share N)) actions of the minibatch where log-probability and advantage move together
    most.

    cov_t = (A_t - mean A) (logp_t - mean logp), over the minibatch and all processes (the official
    code: over the micro-batch), N the number of actions. At the first update after sampling the
    penalty and its gradient are 0: it needs several updates per batch. Needs a forward pass before
    each minibatch.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"current_logprobs"})

    share: float = Field(2e-3, gt=0, le=1)
    """Of all actions: the official script's 0.2 percent; verl's default is a tenth of it."""
    coef: float = Field(1.0, ge=0)
    """The official scripts'; verl's configuration has 0.1."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log rho|."""

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        from trainer.ops.covariance import covariance
        from trainer.ops.filled import filled
        from trainer.ops.selection import action_keys, largest

        now = filled(batch.extra.get("current_logprobs"), "current_logprobs")
        counted = batch.mask * batch.weight
        cov, actions = covariance(now, filled(batch.advantages, "advantages"), counted, across.sum)
        chosen = largest(
            cov,
            action_keys(batch.tokens, batch.mask, across.random.getrandbits(62)),
            counted,
            max(1, int(self.share * actions + 1e-9)),
            across,
        )
        return batch.with_(extra=batch.extra | {"cov_penalised": chosen.to(now.dtype)})

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from trainer.ops.filled import filled
        from trainer.ops.surrogate import log_ratio, ratio_metrics

        bound = self.log_ratio_clamp
        log_rho = log_ratio(evaluation, batch).clamp(-bound, bound)
        chosen = batch.extra["cov_penalised"]
        per_action = -filled(batch.advantages, "advantages") * log_rho.exp()
        nothing = torch.zeros_like(batch.mask)
        return per_action + self.coef * chosen * log_rho.abs(), {
            **ratio_metrics(log_rho, nothing, nothing),
            "cov_penalised": chosen,
        }
