"""Similarity of two texts by the embeddings of their tokens (BMAS)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor


def match_both_ways(given: Tensor, right: Tensor) -> tuple[float, float]:
    """(F, B) of embeddings [m, d] and [n, d]: F the mean over the m of the best cosine with any of
    the n (like precision), B the other way round (like recall). (0, 0) if one is empty."""
    if not len(given) or not len(right):
        return 0.0, 0.0
    given = torch.nn.functional.normalize(given.float(), dim=-1)
    right = torch.nn.functional.normalize(right.float(), dim=-1)
    cosines = given @ right.T
    return float(cosines.amax(1).mean()), float(cosines.amax(0).mean())


def bmas(given: Tensor, right: Tensor, average: Literal["mean", "harmonic"] = "mean") -> float:
    """(F + B) / 2, or 2 F B / (F + B) (0 where F + B <= 0)."""
    forward, backward = match_both_ways(given, right)
    if average == "mean":
        return (forward + backward) / 2
    total = forward + backward
    return 2 * forward * backward / total if total > 0 else 0.0


def table_of(model: object) -> Tensor:
    """A frozen float copy f[vocabulary, d] of a transformers model's input embeddings."""
    return model.get_input_embeddings().weight.detach().float().cpu().clone()  # type: ignore[attr-defined]
