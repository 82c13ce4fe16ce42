"""The regression of a value head on returns."""

from __future__ import annotations

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
