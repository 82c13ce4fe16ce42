from __future__ import annotations

import pytest
import torch

from trainer.losses.value_clip import ValueClip
from trainer.modifiers.base import Modifier
from trainer.modifiers.value import Value
from trainer.types import Evaluation

OLD = torch.tensor([[0.2, 0.4, 0.9, 0.6]])
NEW = torch.tensor([[0.9, 0.5, 0.0, 0.7]])
RETURNS = torch.tensor([[0.951, 0.98, 0.0, 1.0]])


@pytest.mark.parametrize("settings", [{}, {"clip": 0.2}, {"clip": None, "huber": 0.1}])
def test_it_adds_the_critics_loss(make_batch, settings) -> None:
    batch = make_batch([[1, 1, 0, 1]], values=OLD).with_(returns=RETURNS)
    evaluation = Evaluation(torch.zeros(1, 4), values=NEW)
    surrogate = torch.tensor([[1.0, -2.0, 0.0, 3.0]])
    found, metrics = Value(coef=0.5, **settings).on_loss(surrogate, evaluation, batch)
    expected, of_critic = ValueClip(**settings)(evaluation, batch)
    torch.testing.assert_close(found, surrogate + 0.5 * expected)
    assert metrics.keys() == of_critic.keys()


def test_rows_without_advantage_still_teach_it() -> None:
    modifier = Modifier.model_validate({"type": "value", "coef": 0.5})
    assert modifier == Value(coef=0.5)
    assert modifier.changes_loss
    assert modifier.trains_values
    assert not modifier.scales_loss
    assert "values" in modifier.needs


def test_without_returns_it_says_what_it_needs(make_batch) -> None:
    batch = make_batch([[1]], values=torch.zeros(1, 1))
    with pytest.raises(ValueError, match="advantage with returns, such as gae"):
        Value().on_loss(torch.zeros(1, 1), Evaluation(torch.zeros(1, 1), values=NEW), batch)
    with pytest.raises(ValueError, match="coef"):
        Value(coef=0)
