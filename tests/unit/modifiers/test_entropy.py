from __future__ import annotations

import torch

from trainer.modifiers.base import Modifier
from trainer.modifiers.entropy import Entropy
from trainer.types import Evaluation


def test_the_bonus_lowers_the_loss_of_uncertain_actions(make_batch) -> None:
    entropy = torch.tensor([[2.0, 0.5]], requires_grad=True)
    batch = make_batch([[1, 1]])
    modifier = Modifier.model_validate({"type": "entropy", "coef": 0.1})
    changed, metrics = modifier.on_loss(
        torch.ones(1, 2), Evaluation(torch.zeros(1, 2), entropy=entropy), batch
    )
    torch.testing.assert_close(changed, torch.tensor([[0.8, 0.95]]))
    (gradient,) = torch.autograd.grad(changed.sum(), entropy)
    torch.testing.assert_close(gradient, torch.full((1, 2), -0.1))
    assert metrics == {}
    assert modifier.needs == {"entropy"}


def test_without_a_coefficient_rows_may_be_skipped() -> None:
    assert Entropy().changes_loss
    assert not Entropy(coef=0).changes_loss
