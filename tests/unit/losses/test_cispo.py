"""Numbers of the card base-cispo."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.losses.base import Loss
from trainer.losses.cispo import Cispo
from trainer.losses.ppo_clip import PpoClip
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

NOW = torch.tensor([[0.9, 0.05], [0.3, 0.6]]).log()
OLD = torch.tensor([[0.3, 0.1], [0.3, 0.2]]).log()
MASK = [[1, 1], [1, 0]]
ADVANTAGES = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])


@pytest.fixture
def batch(make_batch):
    return make_batch(MASK, old_logprobs=OLD, advantages=ADVANTAGES)


def test_card(batch) -> None:
    logprobs = NOW.clone().requires_grad_()
    per_action, metrics = Cispo(is_weight_max=1.2)(Evaluation(logprobs), batch)
    weight = torch.tensor([[1.2, 0.5], [1.0, 1.2]])
    assert_close((metrics["is_weight"] * batch.mask)[0], weight[0])
    assert metrics["is_weight"][1, 0] == 1
    expected = torch.tensor([[0.126433, 1.497866], [-1.203973, 0.0]])
    assert_close(per_action * batch.mask, expected, atol=1e-6, rtol=0)
    scale = coefficients(batch.mask, batch.weight, "token_mean", length_norm=2)
    assert (per_action * scale).sum().item() == pytest.approx(0.140109, abs=1e-6)
    (gradient,) = torch.autograd.grad(per_action.sum(), logprobs)
    assert_close(gradient[0], torch.tensor([-1.2, -0.5]))
    ppo, _ = PpoClip()(Evaluation(logprobs), batch)
    assert torch.autograd.grad(ppo.sum(), logprobs)[0][0, 0] == 0
    assert metrics["clip_high"][0].tolist() == [1, 0]


def test_a_floor(batch) -> None:
    _, metrics = Cispo(is_weight_max=1.2, is_weight_min=0.8)(Evaluation(NOW), batch)
    assert metrics["is_weight"][0].tolist() == pytest.approx([1.2, 0.8])
    assert metrics["clip_low"][0].tolist() == [0, 1]


def test_with_the_mask_the_gradient_is_ppo_s(make_batch) -> None:
    """Wherever PPO has a gradient, but for the cap on the weight of what it keeps."""
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1, 0.9]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]])
    batch = make_batch([[1] * 6], old_logprobs=torch.full((1, 6), -2.0), advantages=advantages)
    found = []
    for loss in (Cispo(is_weight_max=1.2, is_weight_min=0.8, ppo_mask=True), PpoClip()):
        logprobs = (ratio.log() - 2).requires_grad_()
        per_action, _ = loss(Evaluation(logprobs), batch)
        found.append(torch.autograd.grad(per_action.sum(), logprobs)[0])
    assert_close(found[0], torch.tensor([[0.0, 1.2, -0.8, 0.0, -1.1, 0.9]]))
    assert_close(found[1], torch.tensor([[0.0, 1.5, -0.5, 0.0, -1.1, 0.9]]))


def test_on_policy_it_is_reinforce(make_batch) -> None:
    batch = make_batch(MASK, advantages=ADVANTAGES)
    per_action, metrics = Cispo()(Evaluation(NOW), batch)
    assert_close(per_action, -ADVANTAGES * NOW)
    assert (metrics["ratio"] == 1).all()


def test_bounds_are_of_the_weight_itself() -> None:
    with pytest.raises(ValidationError, match=r"is_weight_min = 0\.8 must be below"):
        Loss.model_validate({"type": "cispo", "is_weight_max": 0.28, "is_weight_min": 0.8})
    assert Loss.model_validate("cispo") == Cispo(is_weight_max=5.0)
