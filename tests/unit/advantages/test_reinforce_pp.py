"""Numbers of the worked example of REINFORCE++ (arXiv:2501.03262)."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.reinforce_pp import ReinforcePp


@pytest.fixture
def dense(make_batch):
    rewards = torch.tensor([[-0.1, -0.1, 1], [-0.2, 0, 0]])
    return make_batch([[1, 1, 1], [1, 1, 0]]).with_(rewards=rewards)


def near(found: torch.Tensor, expected: list[list[float]]) -> None:
    assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_by_hand(dense) -> None:
    near(ReinforcePp(normalise="none")(dense), [[0.8, 0.9, 1], [-0.2, 0, 0]])
    near(ReinforcePp()(dense), [[0.538816, 0.718421, 0.898026], [-1.257237, -0.898026, 0]])


def test_baseline_by_hand(make_batch) -> None:
    mask = [[1, 1], [1, 0], [1, 1], [1, 1]]
    batch = make_batch(mask, [1.0, 0.0, 0.5, 0.5], group=[0, 0, 1, 1])
    found = ReinforcePp(baseline="group")(batch)
    tied = [-0.20702, -0.20702]
    near(found, [[1.242118, 1.242118], [-1.656157, 0], tied, tied])


def test_openrlhfs_forms(dense) -> None:
    values = torch.tensor([0.8, 0.9, 1, -0.2, 0])
    biased = ReinforcePp(unbiased=False)(dense)[dense.mask]
    assert_close(biased, (values - values.mean()) / values.std(unbiased=False))
    centred = ReinforcePp(normalise="mean")(dense)[dense.mask]
    assert_close(centred, values - values.mean())


def test_gamma_counts_actions_only(make_batch) -> None:
    batch = make_batch([[1, 0, 0, 1]], [1.0])
    near(ReinforcePp(gamma=0.5, normalise="none")(batch), [[0.5, 0, 0, 1]])


def test_verls_quirk(make_batch) -> None:
    batch = make_batch([[1, 1, 0, 1]], [1.0])
    near(ReinforcePp(normalise="none")(batch), [[1, 1, 0, 1]])
    near(ReinforcePp(normalise="none", reset_at_gaps=True)(batch), [[0, 0, 0, 1]])


@pytest.mark.parametrize("baseline", ["none", "group"])
def test_no_signal_is_exactly_zero(make_batch, baseline) -> None:
    advantage = ReinforcePp(baseline=baseline)
    assert not advantage(make_batch([[1, 1], [1, 1]], [0.1, 0.1])).any()
    assert not advantage(make_batch([[0, 1], [0, 0]], [0.7, 0.0])).any()
    assert not advantage(make_batch([[0, 0]], [0.7])).any()


def test_what_it_looks_at() -> None:
    assert ReinforcePp().crosses_groups
    assert not ReinforcePp(normalise="none").crosses_groups


def test_it_is_found_by_name() -> None:
    made = Advantage.model_validate({"type": "reinforce_pp", "baseline": "group"})
    assert made == ReinforcePp(baseline="group")
