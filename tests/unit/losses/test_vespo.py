"""Worked out by hand from the formula in TRL's documentation of `loss_type="vespo"`."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from trainer.losses.vespo import Vespo
from trainer.types import Evaluation


def run(make_batch, log_ratio: list[list[float]], advantage: list[float], mask=None):
    ratio = torch.tensor(log_ratio)
    logprobs = (ratio - 2).requires_grad_()
    batch = make_batch(
        mask or [[1] * ratio.shape[1]] * len(ratio),
        old_logprobs=torch.full_like(ratio, -2.0),
        advantages=torch.tensor(advantage)[:, None].expand_as(ratio),
    )
    per_action, metrics = Vespo()(Evaluation(logprobs), batch)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    return gradient, metrics


def test_by_hand(make_batch) -> None:
    """w = 2 and 1/2: phi = w^k exp(lambda (1 - w))."""
    two = math.log(2)
    gradient, metrics = run(make_batch, [[two, 0.0], [-two, 0.0]], [1.0, -1.0])
    up, down = 4 * math.exp(-3), 0.125 * math.exp(1)
    assert_close(gradient, torch.tensor([[-up, -up], [down, down]]))
    assert_close(metrics["is_weight"], torch.tensor([[up, up], [down, down]]))
    assert metrics["clip_high"].tolist() == [[1, 1], [0, 0]]
    assert metrics["clip_low"].tolist() == [[0, 0], [1, 1]]


def test_on_policy_it_is_reinforce(make_batch) -> None:
    gradient, metrics = run(make_batch, [[0.0, 0.0]], [0.7])
    assert gradient[0].tolist() == pytest.approx([-0.7, -0.7])
    assert (metrics["is_weight"] == 1).all()


def test_far_away_it_fades_to_nothing(make_batch) -> None:
    gradient, _ = run(make_batch, [[90.0, 90.0], [-90.0, -90.0]], [1.0, 1.0])
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e-10


def test_only_actions_enter_the_ratio(make_batch) -> None:
    _, metrics = run(make_batch, [[0.5, 9.0]], [1.0], mask=[[1, 0]])
    assert metrics["ratio"][0].tolist() == pytest.approx([math.exp(0.5)] * 2)
