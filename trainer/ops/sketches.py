"""A few numbers that tell two weights apart, also where one of them can only be multiplied with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_HEADS = ("lm_head.weight",)
_EMBEDDING = "embed_tokens.weight"


def probe_vector(n: int) -> Tensor:
    """f[n]: fixed random numbers, of length about 1."""
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, generator=generator) / n**0.5


def sketch(weight: Tensor) -> Tensor:
    """A matrix [m, n] times a fixed vector, f[m]; anything else flattened to rows first, and a
    vector as it is."""
    weight = weight.detach().float().cpu()
    if weight.ndim < 2:
        return weight.reshape(-1)
    rows = weight.flatten(1)
    return rows @ probe_vector(rows.shape[1])


def most_different(
    ours: Iterable[tuple[str, Tensor]], theirs: Mapping[str, list[float]]
) -> tuple[str, float] | None:
    """(name, relative difference) of the weight that an engine's sketch misses by most; None if
    nothing could be compared. A head the policy does not list is tied to the embedding."""
    gaps: dict[str, float] = {}
    heads = [name for name in _HEADS if name in theirs]
    embedding: Tensor | None = None
    for name, weight in ours:
        mine = sketch(weight)
        if name in theirs:
            gaps[name] = _gap(mine, theirs[name])
        if name.endswith(_EMBEDDING):
            embedding = mine
    for head in heads:
        if head not in gaps and embedding is not None:
            gaps[head] = _gap(embedding, theirs[head])
    return max(gaps.items(), key=lambda item: item[1], default=None)


def _gap(mine: Tensor, theirs: list[float]) -> float:
    other = torch.tensor(theirs)
    if len(other) < len(mine) or not torch.isfinite(other).all():
        return float("inf")
    other = other[: len(mine)]  # vLLM pads vocabularies
    return float((other - mine).norm() / mine.norm().clamp_min(1e-12))
