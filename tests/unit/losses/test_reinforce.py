"""Numbers of the cards base-raft and base-rloo."""

from __future__ import annotations

import pytest
import torch

from trainer.losses.base import Loss
from trainer.losses.ppo_clip import PpoClip
from trainer.losses.reinforce import Reinforce
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

LOGPROBS = torch.tensor([[-1.0, -2.0, -4.0], [-0.5, -3.0, 0.0]])
MASK = [[1, 1, 1], [1, 1, 0]]
ADVANTAGES = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 0.0]])


def test_minus_advantage_times_logprob(make_batch) -> None:
    logprobs = LOGPROBS.clone().requires_grad_()
    batch = make_batch(MASK, advantages=ADVANTAGES)
    per_action, metrics = Reinforce()(Evaluation(logprobs), batch)
    assert per_action.tolist() == [[1, 2, 4], [-0.5, -3, 0]]
    assert not metrics["logprob"].requires_grad
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    assert torch.equal(gradient, -ADVANTAGES)
    assert Loss.model_validate("reinforce") == Reinforce()


def test_as_a_sum_over_the_answer_it_is_rloo_s(make_batch) -> None:
    """-mean_i A_i sum_t logp."""
    batch = make_batch(MASK, advantages=ADVANTAGES)
    per_action, _ = Reinforce()(Evaluation(LOGPROBS), batch)
    scale = coefficients(batch.mask, batch.weight, "seq_mean_token_sum", length_norm=3)
    assert (per_action * scale).sum().item() == pytest.approx((7.0 - 3.5) / 2)


def test_on_policy_it_has_the_gradient_of_grpo(make_batch) -> None:
    found = []
    for loss in (Reinforce(), PpoClip()):
        logprobs = LOGPROBS.clone().requires_grad_()
        per_action, _ = loss(Evaluation(logprobs), make_batch(MASK, advantages=ADVANTAGES))
        found.append(torch.autograd.grad(per_action.sum(), logprobs)[0])
    assert torch.equal(*found)


def test_without_advantages_it_says_so(make_batch) -> None:
    with pytest.raises(ValueError, match="advantages: this batch has none"):
        Reinforce()(Evaluation(LOGPROBS), make_batch(MASK))
