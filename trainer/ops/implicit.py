"""Implicit process rewards: a reward model that is a log-ratio of two language models.

D_i = sum_t q[i, t] with q[i, t] = log pi_phi - log pi_ref of token t; the reward of an answer is
beta D_i, that of a token beta q[i, t] ("Free Process Rewards without Process Labels",
arXiv:2412.01981; PRIME, arXiv:2502.01456).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.ops.masked import masked_sum
from trainer.ops.returns import at_last_action, suffix_sum

TIE = 1e-5
"""Nats below which two sums of log-ratios differ by rounding alone."""


def row_rewards(logprobs: Tensor, reference: Tensor | None, mask: Tensor, beta: float) -> Tensor:
    """[B]: beta D_i over `mask`; with gradient to `logprobs`. `reference` None is 0 everywhere."""
    ratio = logprobs if reference is None else logprobs - reference.to(logprobs.dtype)
    return beta * masked_sum(ratio, mask, -1)


def token_rewards(logprobs: Tensor, reference: Tensor, mask: Tensor, *, whole: bool) -> Tensor:
    """[B, T], double: q in place, or with `whole` its sum at the last action; 0 outside `mask`."""
    ratio = (logprobs.double() - reference.double()).masked_fill(~mask.bool(), 0.0)
    return at_last_action(ratio.sum(-1), mask) if whole else ratio


def largest_return(rewards: Tensor, mask: Tensor) -> float:
    """max over actions of |sum of the rewards from there to the end of the row|; 0 without any."""
    returns = suffix_sum(rewards.masked_fill(~mask.bool(), 0.0)).abs()
    return float(returns.masked_fill(~mask.bool(), 0.0).amax()) if returns.numel() else 0.0


def opposites(labels: Tensor, group: Tensor, rollout: Tensor) -> Tensor:
    """i[P, 2]: rows (right, wrong) of one group, the k-th right with the k-th wrong by `rollout`,
    wherever they stand; rows left over pair with none. Right: a label above 0.5."""
    pairs = []
    for own in torch.unique(group).tolist():
        rows = (group == own).nonzero().flatten()
        rows = rows[rollout[rows].argsort(stable=True)]
        right = labels[rows] > 0.5
        pairs += list(zip(rows[right].tolist(), rows[~right].tolist(), strict=False))
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def other_side(values: Tensor, labels: Tensor, group: Tensor) -> Tensor:
    """[B]: for a row with label o > 0 the mean of `values` over the rows of its group with a lower
    label, for one with o <= 0 over those with a higher one; 0 where there are none."""
    found = torch.zeros_like(values)
    for row, (own, label) in enumerate(zip(group.tolist(), labels.tolist(), strict=True)):
        facing = (group == own) & (labels < label if label > 0 else labels > label)
        if facing.any():
            found[row] = values[facing].mean()
    return found


def pair_accuracy(values: Tensor, labels: Tensor, group: Tensor) -> list[float]:
    """For each group, the share of its pairs that `values` [B] order as `labels` [B] do, weighted
    by |o_i - o_j|; values within `TIE` count half, and so does a group of equal labels."""
    found = []
    for own in torch.unique(group).tolist():
        value, label = values[group == own].double(), labels[group == own].double()
        apart = label[:, None] - label
        weight = apart.abs()
        ahead = value[:, None] - value
        ahead = ahead.masked_fill(ahead.abs() < TIE, 0.0)
        agree = (torch.sign(ahead) * torch.sign(apart) + 1) / 2
        total = float(weight.sum())
        found.append(float((weight * agree).sum()) / total if total else 0.5)
    return found
