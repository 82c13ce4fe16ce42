"""Numbers of the card base-clip-cov-kl-cov."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.kl_cov import KlCov
from trainer.ops.across import Across
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

NOW = torch.tensor([[0.9, 0.2, 0.99], [0.02, 0.5, 1.0]]).log()
LOG_RATIO = torch.tensor([[0.1, -0.1, 0.02], [-0.3, 0.05, 0.0]])
MASK = [[1, 1, 1], [1, 1, 0]]
ADVANTAGES = torch.tensor([[2.0, 2, 2], [-2, -2, 0]])


@pytest.fixture
def batch(make_batch):
    return make_batch(
        MASK,
        old_logprobs=NOW - LOG_RATIO,
        advantages=ADVANTAGES,
        tokens=torch.tensor([[3, 4, 5], [3, 7, 8]]),
        extra={"current_logprobs": NOW},
    )


def run(batch, **fields):
    loss = KlCov(**fields)
    ready = loss.on_minibatch(batch, Across.alone())
    logprobs = NOW.clone().requires_grad_()
    per_action, metrics = loss(Evaluation(logprobs), ready)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    return per_action.detach(), gradient, metrics


def test_card(batch) -> None:
    before = torch.tensor([[-2.210342, -1.809675, -2.040403], [1.481636, 2.102542, 0.0]])
    plain, _, _ = run(batch, coef=0)
    assert_close(plain, before, atol=2e-6, rtol=0)
    per_action, gradient, metrics = run(batch)  # int(0.002 * 5) = 0 is at least one
    after = before.clone()
    after[1, 0] = 1.781636
    assert_close(per_action, after, atol=2e-6, rtol=0)
    scale = coefficients(batch.mask, batch.weight, "token_mean", length_norm=3)
    assert (per_action * scale).sum().item() == pytest.approx(-0.435248, abs=1e-6)
    assert metrics["cov_penalised"].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert gradient[1, 0].item() == pytest.approx(1.481636 - 1, abs=1e-6)


def test_nothing_is_clipped(batch) -> None:
    far = batch.with_(old_logprobs=NOW - 2.0)
    per_action, gradient, metrics = run(far, coef=0)
    assert_close(per_action, -ADVANTAGES * torch.tensor(2.0).exp())
    assert_close(gradient, per_action)
    assert not metrics["clip_high"].any()


def test_the_share(batch) -> None:
    """The largest covariances: 6.35, 2.01, 1.86, -0.55, -1.37."""
    assert run(batch, share=0.4)[2]["cov_penalised"].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert run(batch, share=1.0)[2]["cov_penalised"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_at_the_first_update_the_penalty_is_silent(batch) -> None:
    fresh = batch.with_(old_logprobs=None)
    with_penalty, without = run(fresh, share=1.0), run(fresh, coef=0)
    assert torch.equal(with_penalty[0], without[0])
    assert torch.equal(with_penalty[1], without[1])


def test_equal_covariances_are_still_counted_out(make_batch) -> None:
    """Advantages all alike: every covariance is 0, and one of six is taken, not all."""
    batch = make_batch(
        [[1] * 3] * 2,
        advantages=torch.ones(2, 3),
        tokens=torch.tensor([[3, 4, 5], [6, 7, 8]]),
        extra={"current_logprobs": NOW},
    )
    assert run(batch)[2]["cov_penalised"].sum() == 1


def test_rows_without_advantage_have_a_gradient() -> None:
    assert not KlCov.zero_advantage_is_zero_gradient
    assert KlCov().needs == {"current_logprobs"}
    assert Loss.model_validate("kl_cov") == KlCov(share=0.002, coef=1.0)
