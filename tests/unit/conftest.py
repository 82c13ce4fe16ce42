"""Hand-made batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from trainer.types import Batch


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """`make_batch(mask, returns=None, group=None, **fields)`: a batch of 0/1 rows, as long as
    `mask`. A row's return sits on its last action, or on its last position if it has none."""

    def make(
        mask: Sequence[Sequence[int]],
        returns: Sequence[float] | None = None,
        group: Sequence[int] | None = None,
        **fields: object,
    ) -> Batch:
        actions = torch.tensor(mask, dtype=torch.bool)
        rows, width = actions.shape
        rewards = torch.zeros(rows, width)
        for row, value in enumerate(returns or [0.0] * rows):
            own = actions[row].nonzero().flatten().tolist() or [width - 1]
            rewards[row, own[-1]] = value
        zeros = torch.zeros(rows, width)
        return Batch(
            **{
                "tokens": torch.zeros(rows, width, dtype=torch.long),
                "mask": actions,
                "length": torch.full((rows,), width),
                "turn": actions.long() - 1,
                "version": actions.long() - 1,
                "rewards": rewards,
                "weight": torch.ones(rows, width),
                "group": torch.tensor(group or [0] * rows),
                "rollout": torch.arange(rows),
                "sampled_logprobs": zeros,
                **fields,
            }
        )

    return make
