"""Numbers of the card base-clip-cov-kl-cov."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.ops.covariance import covariance

LOGPROBS = torch.tensor([[0.9, 0.2, 0.99], [0.02, 0.5, 1.0]]).log()
ADVANTAGES = torch.tensor([[2.0, 2, 2], [-2, -2, 7]])
COUNTED = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
CARD = torch.tensor([[1.857029, -0.549495, 2.009526], [6.350446, -1.374856, 0.0]]).double()


def test_card() -> None:
    cov, actions = covariance(LOGPROBS, ADVANTAGES, COUNTED, torch.clone)
    assert_close(cov, CARD, atol=1e-6, rtol=0)
    assert actions == 5


def test_means_are_over_all_processes() -> None:
    sums: list[torch.Tensor] = []
    for row in (0, 1):
        covariance(
            LOGPROBS[row], ADVANTAGES[row], COUNTED[row], lambda x: sums.append(x) or x.clone()
        )
    for row in (0, 1):
        cov, actions = covariance(
            LOGPROBS[row], ADVANTAGES[row], COUNTED[row], lambda _: sums[0] + sums[1]
        )
        assert_close(cov, CARD[row], atol=1e-6, rtol=0)
        assert actions == 5


def test_a_shared_token_counts_once() -> None:
    twice = torch.tensor([[1.0, 0.5], [1.0, 0.5]])
    cov, actions = covariance(
        torch.tensor([[-1.0, -4.0], [-3.0, -4.0]]),
        torch.tensor([[1.0, 1], [0, 1]]),
        twice,
        torch.clone,
    )
    assert actions == 3
    assert cov[0, 1].item() == pytest.approx((1 - 2 / 3) * (-4 + 8 / 3))


def test_nothing_at_all() -> None:
    cov, _ = covariance(LOGPROBS, ADVANTAGES, torch.zeros(2, 3), torch.clone)
    assert not cov.any()
