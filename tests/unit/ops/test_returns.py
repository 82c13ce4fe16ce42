"""Returns, GAE and whitening, against the plainest possible code."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from trainer.ops.returns import (
    actions_left,
    at_last_action,
    gae,
    reward_to_go,
    suffix_sum,
    whiten,
)

NUMBER = st.floats(-3, 3, allow_nan=False, width=32)


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]], list[list[int]]]:
    """Rewards, values and mask of a batch."""
    width, height = draw(st.integers(1, 8)), draw(st.integers(1, 4))

    def matrix(of: st.SearchStrategy) -> list:
        return draw(
            st.lists(st.lists(of, min_size=width, max_size=width), min_size=height, max_size=height)
        )

    return matrix(NUMBER), matrix(NUMBER), matrix(st.integers(0, 1))


def by_action(rewards: list[float], mask: list[int]) -> tuple[list[int], list[float]]:
    """Places of the actions, and what each earns until the next one."""
    places = [t for t, own in enumerate(mask) if own]
    ends = [*places[1:], len(mask)]
    return places, [math.fsum(rewards[a:b]) for a, b in zip(places, ends, strict=False)]


@given(rows(), st.sampled_from([1.0, 0.9, 0.0]))
def test_reward_to_go_is_the_discounted_sum_of_later_actions(batch, gamma) -> None:
    rewards, _, mask = batch
    found = reward_to_go(torch.tensor(rewards), torch.tensor(mask), gamma)
    expected = torch.zeros(len(mask), len(mask[0]), dtype=torch.double)
    for i, (row, own) in enumerate(zip(rewards, mask, strict=True)):
        places, earned = by_action(row, own)
        for k, t in enumerate(places):
            expected[i, t] = sum(gamma ** (j - k) * earned[j] for j in range(k, len(places)))
    assert_close(found, expected, atol=1e-9, rtol=1e-9)


@given(rows(), st.sampled_from([1.0, 0.9]), st.sampled_from([0.0, 0.95, 1.0]))
def test_gae_is_the_sum_of_discounted_errors(batch, gamma, lam) -> None:
    rewards, values, mask = batch
    found = gae(*map(torch.tensor, batch), gamma, lam)
    expected = torch.zeros(len(mask), len(mask[0]), dtype=torch.double)
    for i, own in enumerate(mask):
        places, earned = by_action(rewards[i], own)
        v = [values[i][t] for t in places] + [0.0]
        errors = [earned[k] + gamma * v[k + 1] - v[k] for k in range(len(places))]
        for k, t in enumerate(places):
            expected[i, t] = sum(
                (gamma * lam) ** (j - k) * errors[j] for j in range(k, len(places))
            )
    assert_close(found, expected, atol=1e-9, rtol=1e-9)


@given(rows())
def test_with_lam_1_the_critics_target_is_the_reward_to_go(batch) -> None:
    rewards, values, mask = map(torch.tensor, batch)
    target = gae(rewards, values, mask, 0.9) + values.double() * mask
    assert_close(target, reward_to_go(rewards, mask, 0.9), atol=1e-9, rtol=1e-9)


@given(rows())
def test_what_lies_under_the_mask_is_not_read(batch) -> None:
    rewards, values, mask = map(torch.tensor, batch)
    noise = torch.where(mask.bool(), values, float("nan"))
    assert_close(gae(rewards, noise, mask), gae(rewards, values, mask), rtol=0, atol=0)


def test_gae_by_hand() -> None:
    rewards, values = torch.tensor([[0, 0, 0, 1.0]]), torch.tensor([[0.2, 0.4, 0.9, 0.6]])
    mask = torch.tensor([[1, 1, 0, 1]])
    found = gae(rewards, values, mask, 1.0, 0.95)
    assert found[0].tolist() == pytest.approx([0.751, 0.58, 0, 0.4], abs=1e-6)
    white = whiten(found, mask)
    assert white[0].tolist() == pytest.approx([0.991344, 0.017092, 0, -1.008436], abs=1e-6)


def test_lam_may_differ_by_row() -> None:
    rewards, values = torch.tensor([[0.0, 1.0]] * 2), torch.full((2, 2), 0.5)
    found = gae(rewards, values, torch.ones(2, 2), 1.0, torch.tensor([0.0, 1.0]))
    assert found.tolist() == [[0.0, 0.5], [0.5, 0.5]]


def test_reward_to_go_by_hand_and_whitened() -> None:
    rewards = torch.tensor([[-0.1, -0.1, 1], [-0.2, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    found = reward_to_go(rewards, mask)
    assert_close(found, torch.tensor([[0.8, 0.9, 1], [-0.2, 0, 0]]).double(), atol=1e-6, rtol=0)
    expected = torch.tensor([[0.538816, 0.718421, 0.898026], [-1.257237, -0.898026, 0]]).double()
    assert_close(whiten(found, mask), expected, atol=1e-6, rtol=0)


def test_verls_quirk_forgets_what_comes_after_a_tool() -> None:
    rewards, mask = torch.tensor([[0.0, 0, 0, 1]]), torch.tensor([[1, 1, 0, 1]])
    assert reward_to_go(rewards, mask)[0].tolist() == [1, 1, 0, 1]
    assert reward_to_go(rewards, mask, reset_at_gaps=True)[0].tolist() == [0, 0, 0, 1]


def test_a_tools_reward_goes_to_the_action_before_it() -> None:
    rewards, mask = torch.tensor([[5.0, 0, 0.5, 1]]), torch.tensor([[0, 1, 0, 1]])
    assert reward_to_go(rewards, mask, 0.5)[0].tolist() == [0, 1.0, 0, 1]
    assert gae(rewards, torch.zeros(1, 4), mask, 0.5, 1.0)[0].tolist() == [0, 1.0, 0, 1]


@given(rows(), st.booleans())
def test_whitened_values_have_mean_0_and_variance_1(batch, unbiased) -> None:
    values, _, mask = map(torch.tensor, batch)
    kept = values[mask.bool()].double()
    found = whiten(values, mask, unbiased=unbiased)
    assert not found[~mask.bool()].any()
    if len(kept) < 2 or (kept == kept[0]).all():
        assert not found.any()
        return
    expected = (kept - kept.mean()) / (kept.var(unbiased=unbiased) + 1e-8).sqrt()
    assert_close(found[mask.bool()], expected, atol=1e-9, rtol=1e-9)


def test_a_weight_counts_like_copies() -> None:
    once = torch.tensor([[1.0, 1.0, 4.0]])
    shared = whiten(torch.tensor([[1.0, 4.0], [1.0, 0.0]]), torch.tensor([[1.0, 1], [1, 0]]))
    assert_close(shared[:, 0], whiten(once, torch.ones(1, 3))[0, :2])
    half = whiten(torch.tensor([[1.0, 4.0], [1.0, 2.0]]), torch.tensor([[0.5, 1], [0.5, 1]]))
    assert_close(half[0], whiten(torch.tensor([[1.0, 4.0, 2.0]]), torch.ones(1, 3))[0, :2])


def test_the_other_ways_to_whiten() -> None:
    values, one = torch.tensor([[0.0, 2.0]]), torch.ones(1, 2)
    assert whiten(values, one, scale=False)[0].tolist() == [-1.0, 1.0]
    assert whiten(values, one, unbiased=False, eps=4.0, clamp=True)[0].tolist() == [-0.5, 0.5]
    assert whiten(values, one, unbiased=False, eps=3.0)[0].tolist() == [-0.5, 0.5]


def test_places() -> None:
    mask = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    assert actions_left(mask).tolist() == [[2, 2, 1, 1, 0], [0] * 5]
    assert at_last_action(torch.tensor([2.0, 3.0]), mask).tolist() == [[0, 0, 0, 2, 0], [0] * 5]
    assert suffix_sum(torch.tensor([[1, 2, 3]])).tolist() == [[6, 5, 3]]


def test_fmean_of_a_constant_row_is_no_advantage() -> None:
    third = fmean([0.1, 0.1, 0.1])
    assert not whiten(torch.full((2, 3), third), torch.ones(2, 3)).any()
