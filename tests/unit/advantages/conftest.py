"""Batches with step rewards."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def make_steps(make_batch):
    """`make_steps(scores, outcome=None, group=None, length=2)`: rows of steps of `length` tokens,
    after one token of prompt."""

    def make(scores, outcome=None, group=None, length=2, **fields):
        width = 1 + length * max(map(len, scores))
        mask = [[0] + [1] * length * len(s) + [0] * (width - 1 - length * len(s)) for s in scores]
        batch = make_batch(mask, outcome, group, **fields)
        process = torch.zeros(len(scores), width)
        ends = torch.zeros(len(scores), width, dtype=torch.bool)
        for row, steps in enumerate(scores):
            for k, score in enumerate(steps):
                at = length * (k + 1)
                process[row, at], ends[row, at] = score, True
        return batch.with_(
            rewards=batch.rewards + process,
            outcome=torch.tensor(outcome or [0.0] * len(scores)),
            extra={"process": process, "step_end": ends},
        )

    return make
