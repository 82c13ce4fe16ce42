"""Worked out by hand from the rule of arXiv:2505.22312, section on adaptive entropy control."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.modifiers.adaptive_entropy import AdaptiveEntropy
from trainer.modifiers.base import Modifier
from trainer.types import Evaluation

MASK = [[1, 1], [1, 0]]


def step(modifier: AdaptiveEntropy, make_batch, entropy: float, all_reduce=torch.clone) -> float:
    """Gradient of one action's loss with respect to its entropy: minus the coefficient in force."""
    old = torch.tensor([[entropy - 0.1, entropy + 0.1], [entropy, 99.0]])
    batch = modifier.on_batch(make_batch(MASK, extra={"old_entropy": old}), all_reduce)
    now = torch.ones(2, 2, requires_grad=True)
    loss, metrics = modifier.on_loss(torch.zeros(2, 2), Evaluation(torch.zeros(2, 2), now), batch)
    (gradient,) = torch.autograd.grad(loss.sum(), now)
    assert_close(metrics["entropy_coef"], -gradient)
    return -gradient[0, 0].item()


def test_it_rises_below_the_target_and_is_silent_above(make_batch) -> None:
    modifier = AdaptiveEntropy(target=0.5, coef=0.01, delta=0.005, high=0.02)
    entropies = [0.4, 0.49, 0.6, 0.3, 0.2, 0.1, 0.9, 0.3]
    found = [step(modifier, make_batch, entropy) for entropy in entropies]
    assert found == pytest.approx([0.01, 0.015, 0.0, 0.015, 0.02, 0.02, 0.0, 0.015])


def test_it_stays_above_low(make_batch) -> None:
    modifier = AdaptiveEntropy(target=0.5, coef=0.01, delta=0.02, low=0.005)
    assert step(modifier, make_batch, 0.9) == 0
    assert step(modifier, make_batch, 0.1) == pytest.approx(0.005)


def test_the_entropy_is_of_all_processes(make_batch) -> None:
    """Here 0.4 on three actions, elsewhere 0.8 on three."""
    modifier = AdaptiveEntropy(target=0.5, coef=0.01)
    other = torch.tensor([3 * 0.8, 3.0], dtype=torch.float64)
    assert step(modifier, make_batch, 0.4, lambda own: own + other) == 0


def test_a_checkpoint_holds_the_coefficient(make_batch) -> None:
    whole = AdaptiveEntropy(target=0.5, coef=0.01)
    for entropy in (0.4, 0.4):
        step(whole, make_batch, entropy)
    resumed = AdaptiveEntropy(target=0.5, coef=0.01)
    resumed.load_state_dict(whole.state_dict())
    assert step(resumed, make_batch, 0.4) == step(whole, make_batch, 0.4) == pytest.approx(0.02)


def test_a_step_without_actions_changes_nothing(make_batch) -> None:
    modifier = AdaptiveEntropy(target=0.5, coef=0.01)
    modifier.on_batch(make_batch([[0]], extra={"old_entropy": torch.zeros(1, 1)}), torch.clone)
    assert step(modifier, make_batch, 0.4) == pytest.approx(0.01)


def test_its_settings(make_batch) -> None:
    assert AdaptiveEntropy().needs == {"entropy", "old_entropy"}
    with pytest.raises(ValidationError, match="coef = 2 must lie between low = 0 and high = 1"):
        Modifier.model_validate({"type": "adaptive_entropy", "coef": 2})
    with pytest.raises(ValueError, match="old_entropy: this batch has none"):
        AdaptiveEntropy().on_batch(make_batch(MASK), torch.clone)
