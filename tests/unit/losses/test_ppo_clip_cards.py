"""Numbers of the cards base-dapo, base-raft, r1-reward: settings of `ppo_clip` with a name."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from trainer.losses.ppo_clip import PpoClip
from trainer.modifiers.only_nonzero import OnlyNonzero
from trainer.ops.across import Across
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"), [(1.35, 1.0, -1.28), (0.7, -1.0, 0.8), (0.7, 1.0, -0.7)]
)
def test_dapo(make_batch, ratio: float, advantage: float, expected: float) -> None:
    batch = make_batch(
        [[1]], old_logprobs=torch.zeros(1, 1), advantages=torch.full((1, 1), advantage)
    )
    loss = PpoClip(clip_low=0.2, clip_high=0.28)
    per_action, _ = loss(Evaluation(torch.tensor([[ratio]]).log()), batch)
    assert per_action.item() == pytest.approx(expected, abs=1e-6)
    assert loss.aggregation == "token_mean"


def test_raft_plus_plus(make_batch) -> None:
    """Lengths 3, 2, 1, 4, the second answer wrong, log-ratio 0.3 everywhere."""
    mask = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    advantages = torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None].expand(4, 4)
    batch = make_batch(mask, old_logprobs=torch.full((4, 4), -2.0), advantages=advantages)
    per_action, _ = PpoClip()(Evaluation(torch.full((4, 4), -1.7)), batch)
    assert_close(per_action * batch.mask, -1.2 * advantages * batch.mask)

    def total(batch) -> float:
        scale = coefficients(batch.mask, batch.weight, "token_mean", length_norm=4)
        return (per_action * scale).sum().item()

    assert total(batch) == pytest.approx(-0.96)
    assert total(OnlyNonzero().on_minibatch(batch, Across.alone())) == pytest.approx(-1.2)


def test_pre_clip_of_stable_reinforce(make_batch) -> None:
    """The log-ratio is bounded before exp: e^10 becomes 1000, and pulls no more."""
    old = torch.tensor([[-1.1, -12.0, -0.5]])
    batch = make_batch([[1, 1, 1]], old_logprobs=old, advantages=-torch.ones(1, 3))
    logprobs = torch.tensor([[-1.0, -2.0, -0.5]], requires_grad=True)
    loss = PpoClip(log_ratio_clamp=math.log(1000), aggregation="seq_mean_token_mean")
    per_action, metrics = loss(Evaluation(logprobs), batch)
    assert_close(metrics["ratio"], torch.tensor([[1.105171, 1000.0, 1.0]]), rtol=1e-6, atol=1e-3)
    scale = coefficients(batch.mask, batch.weight, loss.aggregation, length_norm=3)
    assert (per_action * scale).sum().item() == pytest.approx(334.035057, rel=1e-6)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    assert gradient[0, 1] == 0
    assert (gradient[0, ::2] != 0).all()
