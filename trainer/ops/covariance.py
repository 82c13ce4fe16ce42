"""How strongly log-probability and advantage move together at each action (arXiv 2505.22617)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.ops.masked import masked_sum


def covariance(
    logprobs: Tensor, advantages: Tensor, counted: Tensor, all_reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, float]:
    """(A - mean A) (logp - mean logp), f64[B, T], 0 where `counted` f[B, T] (mask times weight)
    is; and the number of actions. Means are over all processes, weighted by `counted`."""
    logp, a, m = logprobs.detach().double(), advantages.double(), counted.double()
    totals = torch.stack([masked_sum(logp, m), masked_sum(a, m), m.sum()])
    mean_logp, mean_a, actions = all_reduce(totals).tolist()
    actions = max(actions, 1e-300)
    product = (a - mean_a / actions) * (logp - mean_logp / actions)
    return torch.where(m > 0, product, 0.0), actions
