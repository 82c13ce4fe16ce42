"""The worked numbers of Adv-GRPO's discriminator, then its gradient and edges."""

from __future__ import annotations

import pytest
import torch

from trainer.losses.hinge import Hinge
from trainer.ops.aggregation import coefficients
from trainer.ops.answers import answer_batch
from trainer.types import Evaluation

VALUES = torch.tensor([0.4, 1.5, -0.2, 0.6]).double()


def total(values: torch.Tensor, batch):
    placed = values[:, None] * batch.mask + 9.0 * ~batch.mask  # what lies elsewhere is not read
    loss = Hinge()
    per_action, metrics = loss(Evaluation(torch.zeros_like(placed), None, placed), batch)
    scale = coefficients(batch.mask, batch.weight, loss.aggregation, length_norm=1)
    actions = batch.mask.sum()
    return (per_action * scale).sum(), (metrics["accuracy"] * batch.mask).sum() / actions


def test_the_worked_example():
    batch = answer_batch([[1, 2, 3], [1, 2], [4, 5], [4, 5, 6, 7]], [1, 1, 0, 0], [0, 1, 0, 1])
    loss, accuracy = total(VALUES, batch)
    assert loss.item() == pytest.approx(0.75)
    assert accuracy.item() == pytest.approx(0.75)
    patches = torch.tensor([0.2, 1.2, 0.8, -0.5, -1.4, 0.1, 0.3, -0.6]).double()
    labels = [1.0] * 4 + [0.0] * 4
    loss, _ = total(patches, answer_batch([[1, 2]] * 8, labels, [0] * 8))
    assert loss.item() == pytest.approx(0.6625)


def test_the_gradient_stops_beyond_the_margin():
    batch = answer_batch([[1, 2]] * 4, [1, 1, 0, 0], [0] * 4)
    values = VALUES.clone().requires_grad_()
    loss, _ = total(values, batch)
    loss.backward()
    assert values.grad.tolist() == [-0.25, 0.0, 0.25, 0.25]


def test_nothing_to_learn_and_no_head():
    loss, _ = total(torch.zeros(1).double(), answer_batch([], [], []))
    assert loss.item() == 0.0
    with pytest.raises(ValueError, match="head: value"):
        Hinge()(Evaluation(torch.zeros(1, 2)), answer_batch([[1, 2]], [1], [0]))


def test_rows_of_answers():
    batch = answer_batch([[1, 2, 3], [4, 5]], [1.0, 0.5], [0, 3])
    assert batch.mask.tolist() == [[False, False, True], [False, True, False]]
    assert batch.rewards.tolist() == [[0, 0, 1.0], [0, 0.5, 0]]
    assert batch.tokens.tolist() == [[1, 2, 3], [4, 5, 0]]
    with pytest.raises(ValueError, match=r"row 1 has 1 token"):
        answer_batch([[1, 2], [3]], [0, 0], [0, 0])
