"""Cross-entropy at step ends, by hand and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from trainer.losses.step_bce import StepBce
from trainer.ops.across import Across
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

MASK = [[0, 1, 1, 1], [0, 1, 1, 0]]
ENDS = torch.tensor([[False, False, True, True], [False, True, False, False]])
LABELS = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.25, 0.0, 0.0]])


@pytest.fixture
def labelled(make_batch):
    batch = make_batch(MASK, extra={"process": LABELS, "step_end": ENDS})
    return StepBce().on_minibatch(batch, Across.alone())


def total(loss: StepBce, values: torch.Tensor, batch) -> torch.Tensor:
    per_action, _ = loss(Evaluation(torch.zeros_like(values), values=values), batch)
    scale = coefficients(batch.mask, batch.weight, loss.aggregation, length_norm=4)
    return (per_action * scale.to(per_action)).sum()


def test_by_hand(labelled) -> None:
    """log 2 at the first end; -log(1 - s(2)) at the second; soft label 1/4 at s(-1)."""
    values = torch.tensor([[9.0, 9.0, 0.0, 2.0], [0.0, -1.0, 9.0, 9.0]])
    evaluation = Evaluation(torch.zeros(2, 4), values=values)
    per_action, metrics = StepBce()(evaluation, labelled)
    soft = -(0.25 * math.log(0.2689414) + 0.75 * math.log(0.7310586))
    expected = torch.zeros(2, 4)
    expected[0, 2], expected[0, 3], expected[1, 1] = math.log(2), 2.126928, soft
    assert_close(per_action, expected, atol=2e-6, rtol=0)
    assert metrics["accuracy"][ENDS].tolist() == [0.0, 0.0, 1.0]
    assert metrics["label"][ENDS].tolist() == [1.0, 0.0, 0.25]


def test_only_step_ends_count_also_in_the_denominator(labelled) -> None:
    assert labelled.mask.tolist() == ENDS.tolist()
    values = torch.zeros(2, 4)
    assert total(StepBce(), values, labelled).item() == pytest.approx(math.log(2))


def test_gradient_is_that_of_the_formula(labelled) -> None:
    loss = StepBce(positive_weight=0.3)
    values = torch.linspace(-2, 2, 8, dtype=torch.float64).view(2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: total(loss, v, labelled), values)
    total(loss, values, labelled).backward()
    assert values.grad is not None
    assert not values.grad[~ENDS].any()
    assert values.grad[ENDS].all()


def test_large_values_stay_finite(labelled) -> None:
    values = torch.tensor([[0.0, 0.0, -500.0, 500.0], [0.0, 500.0, 0.0, 0.0]]).requires_grad_()
    found = total(StepBce(), values, labelled)
    found.backward()
    assert found.item() == pytest.approx((500 + 500 + 375) / 3)
    assert values.grad is not None
    assert values.grad.isfinite().all()


def test_a_batch_without_steps_gives_zero(make_batch) -> None:
    batch = StepBce().on_minibatch(make_batch(MASK), Across.alone())
    values = torch.ones(2, 4).requires_grad_()
    found = total(StepBce(), values, batch)
    found.backward()
    assert found.item() == 0
    assert values.grad is not None
    assert not values.grad.any()


@pytest.mark.parametrize("label", [-0.5, 1.5])
def test_labels_outside_of_the_range_are_named(make_batch, label) -> None:
    wrong = LABELS.clone()
    wrong[0, 2] = label
    batch = make_batch(MASK, extra={"process": wrong, "step_end": ENDS})
    batch = StepBce().on_minibatch(batch, Across.alone())
    with pytest.raises(ValueError, match=rf"label is {label:g}.*reward\.values"):
        total(StepBce(), torch.zeros(2, 4), batch)


def test_it_needs_values(labelled) -> None:
    with pytest.raises(ValueError, match="head: value"):
        StepBce()(Evaluation(torch.zeros(2, 4)), labelled)
