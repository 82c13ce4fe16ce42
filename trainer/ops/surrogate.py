"""The clipped surrogate that PPO's descendants share."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
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
    with torch.no_grad():
        metrics = {
            "ratio": ratio.detach(),
            "clip_low": ((ratio < 1 - clip_low) & (advantages < 0)).float(),
            "clip_high": ((ratio > 1 + clip_high) & (advantages > 0)).float(),
            "approx_kl": ratio - 1 - log_ratio,
        }
    return per_action, metrics
