"""The regression of a value head on returns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    *,
    clip: float | None,
    huber: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """max(e(V - R), e(clip(V, V_old - clip, V_old + clip) - R)), [B, T], with the metrics of a
    loss. e(x) = x^2 / 2, or with `huber` d: d (|x| - d / 2) where |x| > d. `clip` None: no
    clipping."""

    def error(predicted: Tensor) -> Tensor:
        off = predicted - returns
        square = off**2 / 2
        if huber is None:
            return square
        return torch.where(off.abs() <= huber, square, huber * (off.abs() - huber / 2))

    plain = error(values)
    metrics = {"value": values.detach(), "value_error": (values - returns).detach() ** 2}
    if clip is None:
        return plain, metrics
    bounded = error(torch.clamp(values, old_values - clip, old_values + clip))
    metrics["value_clipped"] = (bounded > plain).float()
    return torch.maximum(plain, bounded), metrics


def fit(
    values: Tensor, returns: Tensor, weight: Tensor, all_reduce: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """How well values [B, T] predict returns, under `weight` (0 outside the actions), over all
    processes: `value_mean`, `return_mean`, `value_std` and `explained_variance`
    = 1 - Var(R - V) / Var(R): 1 is perfect, 0 no better than a constant; below 0 worse.

    Returns that are all equal explain nothing: then there is no `explained_variance`. No action at
    all: {}. Collective.
    """
    own = weight > 0
    w = weight.double()
    v, r = (torch.where(own, x.double(), 0.0) for x in (values, returns))
    totals = all_reduce(torch.stack([w.sum(), (w * v).sum(), (w * r).sum()]))
    count = float(totals[0])
    if not count:
        return {}
    mean_v, mean_r = totals[1] / count, totals[2] / count
    centred_v = torch.where(own, v - mean_v, 0.0)
    centred_r = torch.where(own, r - mean_r, 0.0)
    squares = [(w * x**2).sum() for x in (centred_v, centred_r, centred_r - centred_v)]
    spread_v, spread_r, spread_off = (float(x) for x in all_reduce(torch.stack(squares)))
    found = {
        "value_mean": float(mean_v),
        "value_std": (spread_v / count) ** 0.5,
        "return_mean": float(mean_r),
    }
    if spread_r > 1e-12 * count:
        found["explained_variance"] = 1 - spread_off / spread_r
    return found
