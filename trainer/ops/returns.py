"""Returns and advantages along the actions of a row: sums to the end, GAE, whitening.

Shapes are [B, T]; sums run in double. Positions outside the action mask (prompt, tool output,
padding) are passed over: they take no discount, and what they earn goes to the action before them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reward_to_go(
    rewards: Tensor, mask: Tensor, gamma: float = 1.0, *, reset_at_gaps: bool = False
) -> Tensor:
    """G_t = r_t + gamma G_next over the actions of a row, 0 outside `mask`; double.

    `gamma` counts once per action. `reset_at_gaps` multiplies the running sum by the mask at every
    position, as verl does: tokens before a tool's output then earn nothing of what comes after it.
    """
    rewards, own = rewards.double(), mask.bool()
    if reset_at_gaps:
        kept = own.double()
        running, found = rewards.new_zeros(len(rewards)), torch.zeros_like(rewards)
        for t in reversed(range(rewards.shape[1])):
            running = (rewards[:, t] + gamma * running) * kept[:, t]
            found[:, t] = running
        return found
    if gamma == 1.0:
        return suffix_sum(rewards) * own
    zeros = rewards.new_zeros(len(rewards))
    running, gap, found = zeros, zeros, torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        here, earned = own[:, t], rewards[:, t] + gap
        running = torch.where(here, earned + gamma * running, running)
        gap = torch.where(here, zeros, earned)
        found[:, t] = torch.where(here, running, zeros)
    return found


def suffix_sum(values: Tensor) -> Tensor:
    """[B, T]: the sum from each position to the end of the row; double."""
    return values.double().flip(-1).cumsum(-1).flip(-1)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float | Tensor = 1.0
) -> Tensor:
    """Generalised advantage estimates (arXiv:1506.02438), 0 outside `mask`; double.

    delta_t = r_t + gamma V_next - V_t and A_t = delta_t + gamma lam A_next, where `next` is the
    next action of the row; after the last one V = A = 0. `values` [B, T] is the value of the state
    before the token; what it holds outside `mask` is ignored. `lam` is a number or one per row [B].
    """
    rewards, values, own = rewards.double(), values.double(), mask.bool()
    zeros = rewards.new_zeros(len(rewards))
    lam = zeros + lam
    value, advantage, gap = zeros, zeros, zeros
    found = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        here = own[:, t]
        earned = rewards[:, t] + gap
        delta = earned + gamma * value - values[:, t]
        advantage = torch.where(here, delta + gamma * lam * advantage, advantage)
        value = torch.where(here, values[:, t], value)
        gap = torch.where(here, zeros, earned)
        found[:, t] = torch.where(here, advantage, zeros)
    return found


def whiten(
    values: Tensor,
    weight: Tensor,
    *,
    unbiased: bool = True,
    eps: float = 1e-8,
    clamp: bool = False,
    scale: bool = True,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) under `weight` [B, T] (0 outside the actions); double.

    mean = sum(w x) / n, var = sum(w (x - mean)^2) / n with n = sum(w), times n / (n - 1) where
    `unbiased`. `clamp` divides by sqrt(max(var, eps)) instead; `scale=False` only centres. 0 where
    the weight is 0; exactly 0 everywhere if all values are equal, or n <= 1.
    """
    w = weight.double()
    own = w > 0
    x = torch.where(own, values.double(), 0.0)
    count = w.sum()
    kept = x[own]
    if count <= 1 or bool((kept == kept[0]).all()):
        return torch.zeros_like(x)
    centred = torch.where(own, x - (w * x).sum() / count, 0.0)
    if not scale:
        return centred
    variance = (w * centred**2).sum() / count
    if unbiased:
        variance = variance * count / (count - 1)
    return centred / (variance.clamp(min=eps) if clamp else variance + eps).sqrt()


def actions_left(mask: Tensor) -> Tensor:
    """i[B, T]: actions from each position to the end of the row, its own included."""
    return mask.long().flip(-1).cumsum(-1).flip(-1)


def at_last_action(values: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: `values` [B] at the last action of each row, 0 elsewhere; a row without any: 0."""
    last = mask.bool() & (actions_left(mask) == 1)
    return values[:, None] * last
