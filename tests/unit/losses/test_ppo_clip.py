"""Numbers worked out by hand from the formulas of arXiv:1707.06347 and arXiv:2402.03300."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.ppo_clip import PpoClip
from trainer.modifiers.kl import Kl
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

A = 0.707106
NOW = torch.tensor([[0.5, 0.4, 0.9], [0.2, 0.6, 0.7]]).log()
OLD = torch.tensor([[0.4, 0.4, 0.6], [0.3, 0.5, 0.7]]).log()
MASK = [[1, 1, 1], [1, 1, 0]]
ADVANTAGES = torch.tensor([[A, A, A], [-A, -A, 0.0]])


def test_by_hand(make_batch) -> None:
    batch = make_batch(MASK, old_logprobs=OLD, advantages=ADVANTAGES)
    per_action, metrics = PpoClip()(Evaluation(NOW), batch)
    expected = torch.tensor([[-0.848527, -0.707106, -0.848527], [0.565685, 0.848527, 0.0]])
    assert_close(per_action, expected, atol=2e-6, rtol=0)
    assert_close(metrics["ratio"][0], torch.tensor([1.25, 1.0, 1.5]))
    assert metrics["clip_high"].tolist() == [[1, 0, 1], [0, 0, 0]]
    assert metrics["clip_low"].tolist() == [[0, 0, 0], [1, 0, 0]]
    log_ratio = NOW - OLD
    assert_close(metrics["approx_kl"], log_ratio.exp() - 1 - log_ratio)


def test_with_kl_and_aggregation(make_batch) -> None:
    ref = torch.tensor([[0.5, 0.5, 0.5], [0.25, 0.5, 0.7]]).log()
    batch = make_batch(MASK, old_logprobs=OLD, advantages=ADVANTAGES, ref_logprobs=ref)
    evaluation = Evaluation(NOW)
    per_action, _ = PpoClip()(evaluation, batch)
    per_action, metrics = Kl(coef=0.04).on_loss(per_action, evaluation, batch)
    k3 = torch.tensor([[0, 0.026856, 0.143342], [0.026856, 0.015655, 0]])
    assert_close(metrics["kl_ref"], k3, atol=1e-6, rtol=0)
    scale = coefficients(batch.mask, batch.weight, "seq_mean_token_mean", length_norm=3)
    assert (per_action * scale).sum().item() == pytest.approx(-0.045581, abs=1e-6)


def test_without_old_logprobs_the_ratio_is_one_and_the_gradient_is_not_zero(make_batch) -> None:
    logprobs = NOW.clone().requires_grad_()
    batch = make_batch(MASK, advantages=ADVANTAGES)
    per_action, metrics = PpoClip()(Evaluation(logprobs), batch)
    assert (metrics["ratio"] == 1).all()
    assert_close(per_action, -ADVANTAGES)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    assert_close(gradient, -ADVANTAGES)


def test_outside_the_range_nothing_pulls_further(make_batch) -> None:
    """Clipped: ratio too high with A > 0, too low with A < 0. The other two still push back."""
    logprobs = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log().requires_grad_()
    batch = make_batch(
        [[1, 1, 1, 1]],
        old_logprobs=torch.zeros(1, 4),
        advantages=torch.tensor([[1.0, -1.0, 1.0, -1.0]]),
    )
    per_action, _ = PpoClip()(Evaluation(logprobs), batch)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    assert_close(gradient, torch.tensor([[0.0, 1.5, -0.5, 0.0]]))


def test_a_higher_upper_bound(make_batch) -> None:
    batch = make_batch([[1]], old_logprobs=torch.zeros(1, 1), advantages=torch.ones(1, 1))
    evaluation = Evaluation(torch.tensor([[1.5]]).log())
    assert PpoClip(clip_high=0.28)(evaluation, batch)[0].item() == pytest.approx(-1.28)


def test_dual_clip_bounds_the_loss_of_bad_actions(make_batch) -> None:
    batch = make_batch(
        [[1, 1]], old_logprobs=torch.zeros(1, 2), advantages=torch.tensor([[-2.0, 2.0]])
    )
    evaluation = Evaluation(torch.tensor([[10.0, 10.0]]).log())
    assert PpoClip()(evaluation, batch)[0].tolist()[0] == pytest.approx([20.0, -2.4])
    assert PpoClip(dual_clip=3)(evaluation, batch)[0].tolist()[0] == pytest.approx([6.0, -2.4])


def test_no_ratio_overflows(make_batch) -> None:
    batch = make_batch(
        [[1, 1]],
        old_logprobs=torch.tensor([[-1000.0, 0.0]]),
        advantages=torch.tensor([[-1.0, -1.0]]),
    )
    per_action, metrics = PpoClip()(Evaluation(torch.tensor([[0.0, -1000.0]])), batch)
    assert per_action.isfinite().all()
    assert metrics["ratio"][0, 0].item() == pytest.approx(485165195.4, rel=1e-6)


def test_it_is_found_by_name() -> None:
    loss = Loss.model_validate({"type": "ppo_clip", "clip_high": 0.28})
    assert loss == PpoClip(clip_high=0.28)
    assert loss.zero_advantage_is_zero_gradient
