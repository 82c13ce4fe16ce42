"""How a [B, T] matrix of per-action losses becomes one number.

Every mode is linear in the losses, so it is written as coefficients: `loss = (per_action *
coefficients).sum()`. Their denominators are counted once, over every row of the optimiser
minibatch on every process; splitting the rows into micro-batches then cannot change the result.

With m the action mask times the row weights, l the losses, N the number of rows:

| mode                      | loss                                          | known as        |
|---------------------------|-----------------------------------------------|-----------------|
| `token_mean`              | sum(m l) / sum(m)                             | DAPO            |
| `token_mean_local`        | mean over chunks of rows of sum(m l) / sum(m) | TRL `bnpo`      |
| `seq_mean_token_mean`     | mean over rows of sum_t(m l) / sum_t(m)       | GRPO            |
| `seq_mean_token_sum`      | mean over rows of sum_t(m l)                  | RLOO, REINFORCE |
| `seq_mean_token_sum_norm` | sum(m l) / (N L_max)                          | Dr. GRPO        |
| `token_sum_norm`          | sum(m l) / L                                  | verl `sum-norm` |
| `seq_length_weighted`     | mean over rows of length * sequence loss      | TRL `luspo`     |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainer.losses.base import Aggregation

Reduce = Callable[[Tensor], Tensor]


def coefficients(
    mask: Tensor,
    weight: Tensor,
    aggregation: Aggregation,
    *,
    length_norm: int,
    local_rows: int = 8,
    count_empty_rows: bool = False,
    all_reduce: Reduce = lambda total: total,
) -> Tensor:
    """f[B, T] for the B rows of this process, 0 outside the mask.

    `mask` b[B, T] and `weight` f[B, T] are those of the whole minibatch of this process.
    `length_norm`: L_max or L of the two modes that divide by a constant, in tokens.
    `count_empty_rows`: rows without any action count in the N of the `seq_mean_*` modes, as in
    TRL; otherwise (verl, OpenRLHF) they do not. Dr. GRPO's and luspo's N always counts them.
    `token_mean_local` cuts the rows of each process, in their order, into chunks of `local_rows`.
    `all_reduce` adds a float64 vector up over processes; every process calls it once. A
    minibatch without any action gives all zeros.
    """
    m = mask.to(torch.float64) * weight.to(torch.float64)
    row_total = m.sum(-1)  # [B]
    rows = float(len(m))
    chunk = torch.arange(len(m), device=m.device) // local_rows
    chunks = float(-(-len(m) // local_rows))
    filled = float((row_total > 0).sum())
    totals = all_reduce(
        torch.tensor([float(row_total.sum()), rows, filled, chunks], dtype=torch.float64).to(m)
    )
    actions, rows, filled, chunks = (max(x, 1e-300) for x in totals.tolist())
    counted = rows if count_empty_rows else filled
    if aggregation == "token_mean":
        scaled = m / actions
    elif aggregation == "token_mean_local":
        chunk_total = row_total.new_zeros(int(chunk[-1]) + 1 if len(m) else 0)
        chunk_total.index_add_(0, chunk, row_total)
        scaled = m / (chunks * _positive(chunk_total)[chunk].unsqueeze(-1))
    elif aggregation == "seq_mean_token_mean":
        scaled = m / (counted * _positive(row_total).unsqueeze(-1))
    elif aggregation == "seq_mean_token_sum":
        scaled = m / counted
    elif aggregation == "seq_mean_token_sum_norm":
        scaled = m / (rows * length_norm)
    elif aggregation == "token_sum_norm":
        scaled = m / length_norm
    elif aggregation == "seq_length_weighted":
        scaled = m / rows
    else:
        raise ValueError(f"unknown aggregation {aggregation!r}")
    return scaled.to(torch.float32)


def _positive(total: Tensor) -> Tensor:
    return total.masked_fill(total == 0, 1.0)
