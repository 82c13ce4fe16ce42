"""Preference pairs, by hand and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from trainer.losses.bradley_terry import BradleyTerry
from trainer.ops.across import Across
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

MASK = [[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 0]]
RETURNS = [1.0, 0.0, 2.0, 1.0, 0.0]
GROUP = [0, 0, 1, 1, 1]


def total(loss: BradleyTerry, last: torch.Tensor, batch, rows=slice(None)) -> torch.Tensor:
    """`last` [B]: the values after the last tokens."""
    from trainer.ops.batches import take

    scale = coefficients(batch.mask, batch.weight, loss.aggregation, length_norm=4)
    chosen = list(range(len(last)))[rows]
    values = last[:, None] * torch.ones(4, dtype=last.dtype)
    evaluation = Evaluation(torch.zeros(len(chosen), 4), values=values[chosen])
    per_action, _ = loss(evaluation, take(batch, chosen))
    return (per_action * scale[chosen].to(per_action)).sum()


@pytest.fixture
def pairs(make_batch):
    batch = make_batch(MASK, RETURNS, GROUP, inputs=({},) * 5)
    return BradleyTerry().on_minibatch(batch, Across.alone())


def log1pexp(x: float) -> float:
    return math.log1p(math.exp(x))


def test_by_hand(pairs) -> None:
    """A group of one pair, and one of three: groups count by their rows."""
    last = torch.tensor([1.0, 0.5, 2.0, 0.0, -1.0])
    one = log1pexp(-0.5)
    three = (log1pexp(-2.0) + log1pexp(-3.0) + log1pexp(-1.0)) / 3
    expected = (2 * one + 3 * three) / 5
    assert total(BradleyTerry(), last, pairs).item() == pytest.approx(expected)
    margin = log1pexp(-0.5 + 0.2)
    assert total(BradleyTerry(margin=0.2), last[:2], _only(pairs, 2)).item() == pytest.approx(
        margin
    )
    centred = one + 0.01 * 1.5**2 / 2
    found = total(BradleyTerry(centre=0.01), last[:2], _only(pairs, 2))
    assert found.item() == pytest.approx(centred)


def _only(batch, rows: int):
    from trainer.ops.batches import take

    return take(batch, range(rows))


def test_metrics_average_to_shares_of_pairs(pairs) -> None:
    values = torch.tensor([1.0, 0.5, -2.0, 0.0, -1.0])[:, None] * torch.ones(4)
    _, metrics = BradleyTerry()(Evaluation(torch.zeros(5, 4), values=values), pairs)
    accuracy = (metrics["accuracy"] * pairs.mask).sum() / pairs.mask.sum()
    assert accuracy.item() == pytest.approx((2 * 1 + 3 * (1 / 3)) / 5)


def test_gradient_is_that_of_the_formula(pairs) -> None:
    loss = BradleyTerry(margin=0.1, centre=0.02)
    last = torch.tensor([0.3, 0.5, -0.2, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: total(loss, v, pairs), last)


def test_whole_groups_may_be_computed_apart(pairs) -> None:
    last = torch.tensor([1.0, 0.5, 2.0, 0.0, -1.0])
    apart = total(BradleyTerry(), last, pairs, slice(0, 2)) + total(
        BradleyTerry(), last, pairs, slice(2, 5)
    )
    assert_close(apart, total(BradleyTerry(), last, pairs))


def test_only_last_actions_of_rows_with_a_pair_count(make_batch) -> None:
    batch = make_batch(MASK, [1.0, 1.0, 2.0, 1.0, 1.0], GROUP)
    found = BradleyTerry().on_minibatch(batch, Across.alone()).mask
    assert found.nonzero().tolist() == [[2, 3], [3, 3], [4, 2]]
    alike = make_batch(MASK, [1.0] * 5, GROUP, inputs=({},) * 5)
    alike = BradleyTerry().on_minibatch(alike, Across.alone())
    assert total(BradleyTerry(), torch.ones(5), alike).item() == 0
