"""Soft adaptive policy optimisation (arXiv 2511.20347): a sigmoid in place of the clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import Aggregation, Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Sapo(Loss):
    """l = -A (4 / tau) sigmoid(tau (rho - 1)), rho = exp(logp - logp_old), tau = `tau_pos` where
    A > 0, else `tau_neg`.

    The gradient is PPO's without a clip times 4 s (1 - s), s the sigmoid: 1 at rho = 1 and fading
    on both sides (metric `gate`). The value has an offset: -2 A / tau on policy, not -A. Takes no
    further clip.
    """

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    tau_pos: float = Field(1.0, gt=0)
    tau_neg: float = Field(1.05, gt=0)
    """Larger than `tau_pos` fades actions with A < 0 sooner: they raise many tokens that were
    never sampled."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log rho| before exp."""
    aggregation: Aggregation = "seq_mean_token_mean"
    """The only one in verl."""

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from trainer.ops.filled import filled
        from trainer.ops.surrogate import log_ratio, ratio_metrics

        advantages, bound = filled(batch.advantages, "advantages"), self.log_ratio_clamp
        log_rho = log_ratio(evaluation, batch).clamp(-bound, bound)
        positive = advantages > 0
        tau = torch.where(positive, self.tau_pos, self.tau_neg).to(log_rho.dtype)
        soft = (tau * (log_rho.exp() - 1)).sigmoid()
        gate = (4 * soft * (1 - soft)).detach()
        # What fades by more than a half is this loss's "clipped", on the side PPO would clip.
        faded, beyond = gate < 0.5, log_rho > 0
        metrics = ratio_metrics(
            log_rho, faded & ~beyond & (advantages < 0), faded & beyond & positive
        )
        return -advantages * soft * 4 / tau, metrics | {"gate": gate}
