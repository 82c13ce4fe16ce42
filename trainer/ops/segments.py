"""Rows seen as sequences of turns or steps: [B, T] to [B, U] and back.

`segment` i[B, T] is the number of the turn or step that a position belongs to, -1 for none, and
rises along a row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.ops.process import step_ends, step_number
from trainer.types import Batch


def turn_segments(batch: Batch) -> Tensor:
    """i[B, T]: the turn of each position; what follows a turn (a tool's answer) belongs to it, what
    comes before the first one to none."""
    return batch.turn.cummax(-1).values


def step_segments(batch: Batch) -> Tensor:
    """i[B, T]: the step of each position; actions after the last step end are one more."""
    return step_number(step_ends(batch))


def present(segment: Tensor, mask: Tensor) -> Tensor:
    """b[B, U]: True where the row has an action of that segment; U is the most segments of a row,
    at least 1."""
    count = max(1, int(segment.max()) + 1) if segment.numel() else 1
    found = torch.zeros(len(segment), count, dtype=torch.bool, device=segment.device)
    own = mask.bool() & (segment >= 0)
    found[own.nonzero()[:, 0], segment[own]] = True
    return found


def sums(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """[B, U]: `values` [B, T] summed over each segment; double."""
    kept = values.double().masked_fill(segment < 0, 0.0)
    return kept.new_zeros(len(kept), count).scatter_add_(1, segment.clamp(min=0), kept)


def firsts(values: Tensor, segment: Tensor, mask: Tensor, count: int) -> Tensor:
    """[B, U]: `values` at the first action of each segment, 0 where there is none; double."""
    seen = torch.where(mask.bool(), segment, -1).cummax(-1).values
    start = mask.bool() & (segment > pad(seen[:, :-1], (1, 0), value=-1))
    return sums(torch.where(start, values.double(), 0.0), segment, count)


def spread(by_segment: Tensor, segment: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: each action has the value [B, U] of its segment, the rest 0."""
    wide = by_segment.gather(1, segment.clamp(min=0))
    return wide.masked_fill(~mask.bool() | (segment < 0), 0.0)
