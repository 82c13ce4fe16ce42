"""Rows that are judged as a whole: a batch whose only action is the last token of each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from trainer.types import Batch


def answer_batch(
    rows: Sequence[Sequence[int]], labels: Sequence[float], groups: Sequence[int]
) -> Batch:
    """Token ids of each row, its label (the return) and the group it belongs to. Without any row,
    one row of two tokens without an action: a process that has nothing to do but to take part.
    Raises ValueError for a row of fewer than two tokens."""
    if short := [i for i, row in enumerate(rows) if len(row) < 2]:
        raise ValueError(f"row {short[0]} has {len(rows[short[0]])} token(s), 2 are needed")
    idle = not rows
    rows, labels, groups = (rows, labels, groups) if rows else ([[0, 0]], [0.0], [0])
    tokens = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    length = torch.tensor([len(row) for row in rows])
    last = torch.arange(tokens.shape[1]) == (length - 1)[:, None]
    mask = last & (not idle)
    blank = torch.zeros(tokens.shape, dtype=torch.float32)
    return Batch(
        tokens=tokens,
        mask=mask,
        length=length,
        turn=torch.where(mask, 0, -1),
        version=torch.full_like(tokens, -1),
        rewards=mask * torch.tensor(labels, dtype=torch.float32)[:, None],
        weight=torch.ones_like(blank),
        group=torch.tensor(groups),
        rollout=torch.arange(len(rows)),
        sampled_logprobs=blank,
        inputs=({},) * len(rows),
    )
