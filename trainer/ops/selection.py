"""Picks some actions of a whole minibatch: the largest by a value, or a random few.

A choice depends on what the actions are, never on how rows are ordered, cut into micro-batches or
spread over processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_STEP = -7046029254386353131
_MIX = (-4658895280553007687, -7723592293110705685)
"""The constants of splitmix64, as signed numbers."""


def action_keys(tokens: Tensor, salt: int) -> Tensor:
    """i64[B, T]: pseudo-random numbers that depend on `salt` and on the tokens i[B, T] up to and
    including the position; a prefix that rows share has the same keys in all of them."""
    place = torch.arange(tokens.shape[-1], device=tokens.device) * _STEP + salt
    return _mixed((_mixed(tokens + 1) * (_mixed(place) | 1)).cumsum(-1))


def largest(
    values: Tensor,
    keys: Tensor,
    counted: Tensor,
    amount: float,
    gather: Callable[[Any], list[Any]],
) -> Tensor:
    """b[B, T]: the positions with the largest `values` that together count `amount`, over all
    processes. `counted` f[B, T] is what a position counts, 0 for those that cannot be chosen.
    Among equal values the smallest `keys` (see `action_keys`) win. If all count less than `amount`,
    all are chosen; every process calls this once.
    """
    own = counted > 0
    value, key, weight = _sorted(values[own].double(), keys[own], counted[own].double())
    # Of a sorted list, nothing behind the first `amount` can be among the first `amount` of all.
    enough = int((weight.cumsum(0) < amount).sum()) + 1
    everyone = gather((value[:enough], key[:enough], weight[:enough]))
    value, key, weight = _sorted(*(torch.cat(parts) for parts in zip(*everyone, strict=True)))
    if amount <= 0 or not len(value):
        return torch.zeros_like(own)
    edge = min(int((weight.cumsum(0) < amount - 1e-9).sum()), len(value) - 1)
    values = values.double()
    return own & ((values > value[edge]) | ((values == value[edge]) & (keys <= key[edge])))


def _sorted(value: Tensor, key: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = key.argsort(stable=True)
    order = order[value[order].argsort(descending=True, stable=True)]
    return value[order], key[order], weight[order]


def _mixed(z: Tensor) -> Tensor:
    for multiplier, shift in zip((*_MIX, None), (30, 27, 31), strict=True):
        z = z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))
        if multiplier is not None:
            z = z * multiplier
    return z
