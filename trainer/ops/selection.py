"""Picks some actions of a whole minibatch: the largest by a value, or a random few.

A choice depends on what the actions are, never on how rows are ordered, cut into micro-batches or
spread over processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.ops.across import Across

_STEP = -7046029254386353131
_MIX = (-4658895280553007687, -7723592293110705685)
"""The constants of splitmix64, as signed numbers."""


def action_keys(tokens: Tensor, mask: Tensor, salt: int) -> tuple[Tensor, Tensor]:
    """Two pseudo-random numbers per action, i64[B, T], that depend on `salt` and on content alone:
    of the tokens i[B, T] up to and including it, so that rows which share a prefix have the same
    keys there, and of the row's actions (`mask` b[B, T]) as a whole."""
    place = torch.arange(tokens.shape[-1], device=tokens.device) * _STEP + salt
    prefix = _mixed((_mixed(tokens + 1) * (_mixed(place) | 1)).cumsum(-1))
    row = torch.where(mask, prefix, 0).sum(-1, keepdim=True)
    return prefix, row.expand_as(prefix)


def largest(
    values: Tensor, keys: tuple[Tensor, Tensor], counted: Tensor, amount: float, across: Across
) -> Tensor:
    """b[B, T]: the positions with the largest `values` that together count `amount`, over all
    processes. `counted` f[B, T] is what a position counts, 0 for those that cannot be chosen.

    Among equal values the smaller `keys` (see `action_keys`) win; what then still ties are copies
    of the same tokens, of which any will do. If all count less than `amount`, all are chosen.
    Every process calls this once.
    """
    candidates = (counted > 0).flatten().nonzero()[:, 0]
    columns = [x.flatten()[candidates] for x in (counted.double(), values.double(), *keys)]
    order = _order(columns)
    own = candidates[order]
    columns = [column[order] for column in columns]
    # Of a sorted list, nothing behind the first `amount` can be among the first `amount` of all.
    enough = int((columns[0].cumsum(0) < amount).sum()) + 1
    everyone = across.gather([column[:enough] for column in columns])
    together = [torch.cat(parts) for parts in zip(*everyone, strict=True)]
    order = _order(together)
    before = together[0][order].cumsum(0) - together[0][order]
    chosen = torch.zeros_like(before, dtype=torch.bool)
    chosen[order] = before < amount - 1e-9
    start = sum(len(other[0]) for other in everyone[: across.rank])
    found = torch.zeros_like(counted, dtype=torch.bool)
    found.view(-1)[own[:enough][chosen[start : start + len(own[:enough])]]] = True
    return found


def _order(columns: list[Tensor]) -> Tensor:
    """Sorts by value, the largest first, then by both keys."""
    _, value, prefix, row = columns
    order = row.argsort(stable=True)
    order = order[prefix[order].argsort(stable=True)]
    return order[value[order].argsort(descending=True, stable=True)]


def _mixed(z: Tensor) -> Tensor:
    for multiplier, shift in zip((*_MIX, None), (30, 27, 31), strict=True):
        z = z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))
        if multiplier is not None:
            z = z * multiplier
    return z
