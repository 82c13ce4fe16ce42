"""The clipped surrogate that PPO's descendants share, and the ratio in it."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.types import Batch, Evaluation


def log_ratio(evaluation: Evaluation, batch: Batch) -> Tensor:
    """log rho = logp - logp_old, f[B, T], 0 outside the mask. Without `old_logprobs` in the batch
    (one update per batch) its value is exactly 0 and its gradient that of logp."""
    now = evaluation.logprobs
    old = now.detach() if batch.old_logprobs is None else batch.old_logprobs
    return torch.where(batch.mask, now - old, 0.0)


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, 1]: mean over the actions of each row; 0 for a row without any."""
    return torch.where(mask, values, 0.0).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(
        min=1
    )


def ratio_metrics(log_ratio: Tensor, low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """What every loss with a ratio shows: rho, where a bound acted (b[B, T]), and the estimate k3
    of KL(old || policy)."""
    log_ratio = log_ratio.detach()
    ratio = log_ratio.exp()
    return {
        "ratio": ratio,
        "clip_low": low.to(ratio.dtype),
        "clip_high": high.to(ratio.dtype),
        "approx_kl": ratio - 1 - log_ratio,
    }


def clipped_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), rho = exp(log_ratio), and where
    A < 0 at most -A `dual_clip`; with the metrics of a loss. Shapes [B, T]; `log_ratio` must be
    bounded already."""
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    per_action = torch.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip is not None:
        bound = -advantages * dual_clip
        per_action = torch.where(advantages < 0, per_action.minimum(bound), per_action)
    return per_action, ratio_metrics(
        log_ratio,
        (ratio < 1 - clip_low) & (advantages < 0),
        (ratio > 1 + clip_high) & (advantages > 0),
    )
