"""The arithmetic of implicit process rewards, against the worked numbers of arXiv:2502.01456."""

from __future__ import annotations

import pytest
import torch

from trainer.ops.implicit import (
    largest_return,
    opposites,
    other_side,
    pair_accuracy,
    row_rewards,
    token_rewards,
)

MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]]).bool()
PHI = torch.tensor([[-0.5, -1, -0.2], [-0.4, -0.9, 7], [-1, -2, -0.5], [-0.3, 7, 7]])
REF = torch.tensor([[-0.7, -1.1, -0.6], [-0.4, -0.5, 3], [-0.8, -1.5, -0.9], [-0.6, 3, 3]])
Q = torch.tensor([[0.2, 0.1, 0.4], [0, -0.4, 0], [-0.2, -0.5, 0.4], [0.3, 0, 0]]).double()


def test_the_worked_example():
    found = token_rewards(PHI, REF, MASK, whole=False)
    torch.testing.assert_close(found, Q, atol=1e-6, rtol=0)
    assert largest_return(found, MASK) == pytest.approx(0.7, abs=1e-6)
    scores = row_rewards(PHI, REF, MASK, 0.05)
    assert scores.tolist() == pytest.approx([0.035, -0.02, -0.015, 0.015], abs=1e-6)


def test_whole_puts_the_sum_on_the_last_action():
    found = token_rewards(PHI, REF, MASK, whole=True)
    expected = torch.tensor([[0, 0, 0.7], [0, -0.4, 0], [0, 0, -0.3], [0.3, 0, 0]])
    torch.testing.assert_close(found, expected.double(), atol=1e-6, rtol=0)


def test_nothing_to_reward():
    empty = torch.zeros(2, 3).bool()
    assert largest_return(torch.ones(2, 3), empty) == 0.0
    assert not token_rewards(PHI[:2], REF[:2], empty, whole=True).any()
    assert largest_return(torch.zeros(0, 3), torch.zeros(0, 3).bool()) == 0.0


def test_no_reference_is_a_reference_of_zero():
    torch.testing.assert_close(
        row_rewards(PHI, None, MASK, 1.0), torch.tensor([-1.7, -1.3, -3.5, -0.3])
    )


def test_the_kth_right_answer_meets_the_kth_wrong_one():
    labels = torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0.5])
    group = torch.tensor([0, 0, 0, 0, 0, 4, 4, 4])
    place = torch.arange(8)
    assert opposites(labels, group, place).tolist() == [[0, 1], [2, 3], [5, 7]]
    assert opposites(labels, group, 8 - place).tolist() == [[2, 4], [0, 3], [6, 7]]
    assert opposites(torch.ones(3), torch.zeros(3), place[:3]).shape == (0, 2)


def test_the_other_side_is_the_mean_of_what_is_worse_or_better():
    values, group = torch.tensor([1.0, 2, 4, 8, 9]), torch.tensor([0, 0, 0, 0, 1])
    labels = torch.tensor([1.0, 0.5, 0, 0, 1])
    assert other_side(values, labels, group).tolist() == [pytest.approx(14 / 3), 6, 1.5, 1.5, 0]


def test_accuracy_weighs_pairs_by_how_far_apart_their_outcomes_are():
    group = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    labels = torch.tensor([1.0, 0.5, 0, 1, 1, 1, 0])
    values = torch.tensor([3.0, 1, 2, 5, 6, 4, 4])
    # pairs of group 0: (1, .5) right, (1, 0) right, (.5, 0) wrong; weights .5, 1, .5
    assert pair_accuracy(values, labels, group) == [pytest.approx(0.75), 0.5, 0.5]
