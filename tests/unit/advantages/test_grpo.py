"""Numbers worked out by hand from the formula of arXiv:2402.03300."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.grpo import Grpo

ONE = [[0, 1, 1]]


def by_row(advantages: torch.Tensor) -> list[float]:
    return advantages[:, 1].tolist()


def test_by_hand(make_batch) -> None:
    batch = make_batch(ONE * 4, [1.0, 1.0, 0.0, 0.5])
    found = Grpo()(batch)
    assert found.dtype == torch.float32
    assert by_row(found) == pytest.approx([0.783348, 0.783348, -1.30558, -0.261116], abs=1e-6)
    assert_close(found, found[:, 1:2] * batch.mask)


def test_pair(make_batch) -> None:
    found = Grpo()(make_batch(ONE * 2, [1.0, 0.0]))
    assert by_row(found) == pytest.approx([0.707106, -0.707106], abs=1e-6)


@pytest.mark.parametrize("value", [1.0, 0.1, -0.7, 1e8])
def test_equal_returns_give_exactly_zero(make_batch, value: float) -> None:
    assert not Grpo(eps=0)(make_batch(ONE * 3, [value] * 3)).any()


def test_a_smaller_group_and_a_group_of_one(make_batch) -> None:
    """A rollout without a score has left the batch: its group is just smaller."""
    batch = make_batch(ONE * 4, [1.0, 0.0, 0.5, 3.0], group=[0, 0, 0, 1])
    assert by_row(Grpo(eps=0)(batch)) == pytest.approx([1.0, -1.0, 0.0, 0.0])


def test_a_row_without_actions_gets_nothing(make_batch) -> None:
    batch = make_batch([[0, 1, 1], [0, 0, 0]], [1.0, 0.0])
    assert not Grpo()(batch)[1].any()


def test_other_scales(make_batch) -> None:
    batch = make_batch(ONE * 4, [1.0, 0.0, 4.0, 2.0], group=[0, 0, 1, 1])
    assert by_row(Grpo(scale_by_std="none")(batch)) == [0.5, -0.5, 1.0, -1.0]
    std = torch.tensor([1.0, 0.0, 4.0, 2.0]).std().item()
    expected = [x / (std + 1e-6) for x in (0.5, -0.5, 1.0, -1.0)]
    assert by_row(Grpo(scale_by_std="batch")(batch)) == pytest.approx(expected)


def test_only_the_batch_scale_looks_at_other_groups() -> None:
    assert Grpo(scale_by_std="batch").crosses_groups
    assert not Grpo().crosses_groups


def test_turn_rewards_add_up_to_the_return(make_batch) -> None:
    batch = make_batch(ONE * 2, [0.5, 0.0])
    rewards = batch.rewards.clone()
    rewards[0, 1] = 0.5
    assert by_row(Grpo()(batch.with_(rewards=rewards))) == pytest.approx(
        [0.707106, -0.707106], abs=1e-6
    )


def test_it_is_found_by_name() -> None:
    assert Advantage.model_validate({"type": "grpo", "eps": 1e-4}) == Grpo(eps=1e-4)


@pytest.mark.parametrize(
    ("returns", "eps", "expected"),
    [
        ([1.711294, 1.75, 1.5, 0], 1e-4, [0.564544, 0.610940, 0.311269, -1.486753]),
        ([2.5, 1.7, 0, 1.0], 1e-4, [1.130427, 0.376809, -1.224630, -0.282607]),
        ([2, 1.4, 1, 0], 1e-4, [1.070492, 0.356831, -0.118944, -1.308379]),
        ([1, 0, 0, 0], 1e-4, [1.4997, -0.4999, -0.4999, -0.4999]),
        ([2.5, 2.5, 1, 1], 1e-4, [0.865925, 0.865925, -0.865925, -0.865925]),
        ([2, 1, 1.1, 0], 1e-6, [1.191892, -0.030561, 0.091684, -1.253015]),
        (
            [1.053919, 1.067399, 0.121319, 0.107839],
            1e-4,
            [0.853443, 0.878115, -0.853443, -0.878115],
        ),
    ],
    ids=["mixed_r1", "visual_rft", "curr_reft", "cls_rl", "grpo_care", "vision_sr1", "sophiavl_r1"],
)
def test_groups_of_the_visual_methods(make_batch, returns, eps, expected) -> None:
    """The worked group of each method."""
    found = by_row(Grpo(eps=eps)(make_batch(ONE * 4, returns)))
    assert found == pytest.approx(expected, abs=1e-4 if returns == [1, 0, 0, 0] else 2e-6)
