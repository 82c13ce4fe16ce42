"""Sums, means and deviations under a mask, and statistics of groups of rows."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of `values` [...] where `mask` [...] is not 0; what lies outside may be NaN."""
    kept = torch.where(mask.bool(), values * mask, torch.zeros_like(values))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of `values` weighted by `mask`; 0 where the mask is empty."""
    total = mask.to(values.dtype)
    total = total.sum() if dim is None else total.sum(dim)
    return masked_sum(values, mask, dim) / total.masked_fill(total == 0, 1)


def masked_std(values: Tensor, mask: Tensor, *, unbiased: bool = True) -> Tensor:
    """Standard deviation over the positions where `mask` is True; 0 for fewer than two."""
    count = mask.bool().sum()
    deviation = values - masked_mean(values, mask.bool())
    squares = masked_sum(deviation**2, mask.bool())
    return (squares / (count - int(unbiased)).clamp(min=1)).sqrt()


def group_index(group: Tensor) -> tuple[Tensor, int]:
    """Ids i[B], any numbers, as 0..K-1 and K."""
    ids, index = torch.unique(group, return_inverse=True)
    return index, len(ids)


def group_count(group: Tensor) -> Tensor:
    """f[B]: how many rows share the id of each row."""
    index, groups = group_index(group)
    return torch.bincount(index, minlength=groups)[index]


def group_mean(values: Tensor, group: Tensor) -> Tensor:
    """[B]: for each row, the mean of `values` [B] over the rows with its id."""
    index, groups = group_index(group)
    total = values.new_zeros(groups).index_add_(0, index, values)
    return (total / torch.bincount(index, minlength=groups))[index]


def group_centred(values: Tensor, group: Tensor) -> Tensor:
    """[B]: `values` minus the mean of the group; exactly 0 where all of a group are equal, which
    subtracting a rounded mean is not."""
    index, groups = group_index(group)
    low = values.new_full((groups,), float("inf")).scatter_reduce_(0, index, values, "amin")
    high = values.new_full((groups,), -float("inf")).scatter_reduce_(0, index, values, "amax")
    return (values - group_mean(values, group)).masked_fill((low == high)[index], 0.0)


def group_std(values: Tensor, group: Tensor) -> Tensor:
    """[B]: for each row, the unbiased standard deviation (ddof 1) of its group; 0 for one row."""
    index, groups = group_index(group)
    squares = values.new_zeros(groups).index_add_(0, index, group_centred(values, group) ** 2)
    freedom = (torch.bincount(index, minlength=groups) - 1).clamp(min=1)
    return (squares / freedom).sqrt()[index]
