"""Numbers of the worked example of PPO: four tokens, the third of a tool."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from trainer.losses.base import Loss
from trainer.losses.value_clip import ValueClip
from trainer.ops.aggregation import coefficients
from trainer.types import Evaluation

OLD = torch.tensor([[0.2, 0.4, 0.9, 0.6]])
RETURNS = torch.tensor([[0.951, 0.98, 0.0, 1.0]])


def new() -> torch.Tensor:
    return torch.tensor([[0.9, 0.5, 123.0, 0.7]], requires_grad=True)


def test_by_hand(make_batch) -> None:
    values = new()
    batch = make_batch([[1, 1, 0, 1]], values=OLD).with_(returns=RETURNS)
    evaluation = Evaluation(torch.zeros(1, 4), values=values)
    per_action, metrics = ValueClip()(evaluation, batch)
    scale = coefficients(batch.mask, batch.weight, "token_mean", length_norm=4)
    loss = (per_action * scale).sum()
    assert loss.item() == pytest.approx(0.0639, abs=5e-5)
    assert metrics["value_clipped"][0].tolist()[:2] == [1, 0]
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient[0].tolist() == pytest.approx([0, (0.5 - 0.98) / 3, 0, (0.7 - 1) / 3])


def test_trl_clips_at_0_2_and_areal_has_huber(make_batch) -> None:
    batch = make_batch([[1, 1, 0, 1]], values=OLD).with_(returns=RETURNS)
    evaluation = Evaluation(torch.zeros(1, 4), values=new())
    tight, _ = ValueClip(clip=0.2)(evaluation, batch)
    assert tight[0, 0].item() == pytest.approx((0.4 - 0.951) ** 2 / 2)
    soft, _ = ValueClip(clip=None, huber=0.1)(evaluation, batch)
    assert soft[0, 1].item() == pytest.approx(0.1 * (0.48 - 0.05))


def test_it_is_a_critics_loss(make_batch) -> None:
    loss = Loss.model_validate({"type": "value_clip", "clip": 0.2, "huber": 10})
    assert loss == ValueClip(clip=0.2, huber=10)
    assert loss.trains_values
    assert "values" in loss.needs
    assert not loss.zero_advantage_is_zero_gradient  # a row without signal still has a return
    with pytest.raises(ValueError, match=r"critic\.loss.*value head"):
        loss(Evaluation(torch.zeros(1, 4)), make_batch([[1, 1, 0, 1]]))


@pytest.mark.parametrize("key", ["clip", "huber"])
def test_bounds_are_positive(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        ValueClip.model_validate({key: 0})
