"""Losses that compare the rows of a group: micro-batches never part them."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch.testing import assert_close

from trainer.errors import CohortError
from trainer.losses.base import Loss


class Compared(Loss):
    """(sum of a row's log-probs less the mean of its group)^2 on each action."""

    couples_rows: ClassVar[bool] = True

    def __call__(self, evaluation, batch):
        total = (evaluation.logprobs * batch.mask).sum(-1)
        same = (batch.group[:, None] == batch.group[None]).to(total)
        off = total - same @ total / same.sum(-1)
        return (off**2)[:, None] * batch.mask, {}


def test_a_small_budget_changes_nothing(make_learner, batch, gradients) -> None:
    found, forwards = [], []
    for tokens in (1, 30, 10**6):
        learner = make_learner(loss=Compared(), learner={"token_budget": tokens})
        found.append(gradients(learner, batch))
        forwards.append(len(learner.policy.seen))
    assert forwards == [4, 4, 1] or forwards[0] == 4 > forwards[1] > forwards[2] == 1
    for other in found[:2]:
        for name, gradient in found[2].items():
            assert_close(other[name], gradient, rtol=1e-6, atol=1e-9)


def test_a_group_that_does_not_fit_ends_the_run(make_learner, batch) -> None:
    learner = make_learner(loss=Compared(), policy={"memory": 5})
    with pytest.raises(CohortError, match="out of memory"):
        learner.update(learner.advantage(learner.annotate(batch)), 1)
    assert not any(p.grad is not None and p.grad.isnan().any() for p in learner.module.parameters())
    assert torch.isfinite(learner.module.head.weight).all()
