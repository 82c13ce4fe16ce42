"""Step rewards of a batch: taking them apart, weighing them, standardising them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainer.ops.masked import group_index
from trainer.ops.returns import at_last_action
from trainer.types import Batch

_ROUNDING = 1e-6
"""Relative error of a sum that was stored in float32."""


def split_rewards(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """process [B, T] (turn and token rewards), outcome [B], penalty [B, T] (what modifiers changed
    since); double. They add up to `rewards`, the outcome on the row's last action."""
    rewards = batch.rewards.double()
    process = batch.extra.get("process", torch.zeros_like(rewards)).double()
    if batch.outcome is None:
        return process, (rewards - process).sum(-1), torch.zeros_like(rewards)
    outcome = batch.outcome.double()
    expected = process + at_last_action(outcome, batch.mask)
    penalty = rewards - expected
    noise = (expected != 0) & (penalty.abs() <= _ROUNDING * (1 + expected.abs()))
    return process, outcome, penalty.masked_fill(noise, 0.0)


def refuse_penalties(batch: Batch, who: str) -> None:
    """Raises ValueError if a modifier changed the rewards of an advantage that would not see it."""
    if bool((split_rewards(batch)[2] * batch.mask).ne(0).any()):
        raise ValueError(
            f"advantage: {who} standardises scores and cannot take penalties in the rewards: set "
            "`where: loss` for the modifier kl, or leave out what changes rewards"
        )


def step_ends(batch: Batch) -> Tensor:
    """b[B, T]: True on the last token of each step; all False in a batch without steps."""
    none = torch.zeros_like(batch.tokens, dtype=torch.bool)
    return batch.extra.get("step_end", none).bool()


def step_number(ends: Tensor) -> Tensor:
    """i[B, T]: the step that each position belongs to, from 0; after the last end: their count."""
    return ends.long().cumsum(-1) - ends.long()


def step_lengths(ends: Tensor, mask: Tensor) -> Tensor:
    """f[B, T]: at each step end the actions of that step, 0 elsewhere; double."""
    seen = mask.long().cumsum(-1)
    before = torch.where(ends, seen, 0).cummax(-1).values.roll(1, -1)
    before[:, 0] = 0
    return torch.where(ends, seen - before, 0).double()


def softmin_weights(scores: Tensor, ends: Tensor, temperature: float) -> Tensor:
    """[B, T]: exp(-s / T) / sum over the steps of the row, 0 off the step ends; double."""
    scaled = torch.where(ends, -scores.double() / temperature, -torch.inf)
    highest = scaled.amax(-1, keepdim=True)
    powers = torch.where(ends, (scaled - highest.nan_to_num(neginf=0.0)).exp(), 0.0)
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-300)


def standard_scores(
    values: Tensor,
    group: Tensor,
    weight: Tensor,
    eps: float,
    *,
    scale: Literal["std", "none", "leave_one_out"] = "std",
) -> Tensor:
    """[n]: (x - mean) / (std + eps) within each group, each value counting `weight` times; std of
    ddof 1. `none` does not divide, `leave_one_out` multiplies by n / (n - 1). Exactly 0 in a group
    whose values are all equal, and for one value; double."""
    if not len(values):
        return values.double()
    values, weight = values.double(), weight.double()
    index, groups = group_index(group)

    def total(x: Tensor) -> Tensor:
        return x.new_zeros(groups).index_add_(0, index, x)

    low = values.new_full((groups,), torch.inf).scatter_reduce_(0, index, values, "amin")
    high = values.new_full((groups,), -torch.inf).scatter_reduce_(0, index, values, "amax")
    count = total(weight)
    centred = values - (total(weight * values) / count)[index]
    freedom = (count - 1).clamp(min=1e-12)
    scaled = centred
    if scale == "std":
        variance = total(weight * centred**2) / freedom
        scaled = centred / (variance.sqrt() + eps).clamp(min=1e-300)[index]
    elif scale == "leave_one_out":
        scaled = centred * (count / freedom)[index]
    return scaled.masked_fill(((low == high) | (count <= 1))[index], 0.0)


def others_sum(values: Tensor, group: Tensor) -> Tensor:
    """[B]: for each row, the sum of `values` [B] over the other rows of its group; double."""
    values = values.double()
    index, groups = group_index(group)
    return values.new_zeros(groups).index_add_(0, index, values)[index] - values
