"""Numbers of the worked example of ReMax (arXiv:2310.10505), both forms."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.remax import Remax


def near(found: torch.Tensor, expected: list[list[float]]) -> None:
    assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_to_go_by_hand(make_batch) -> None:
    parts = {"greedy": torch.tensor([0.4, 0.4])}
    rewards = torch.tensor([[-0.1, 0.05, 1], [0, -0.2, 0]])
    batch = make_batch([[1, 1, 1], [1, 1, 0]], parts=parts).with_(rewards=rewards)
    near(Remax()(batch), [[0.55, 0.65, 0.6], [-0.6, -0.6, 0]])


@pytest.fixture
def penalised(make_batch):
    """beta k1 = [0.1, -0.05] taken off, as modifier `kl` does."""

    def make(outcome: float, greedy: float):
        batch = make_batch([[1, 1]], [outcome], parts={"greedy": torch.tensor([greedy])})
        rewards = batch.rewards - torch.tensor([[0.1, -0.05]])
        return batch.with_(rewards=rewards, outcome=torch.tensor([outcome]))

    return make


def test_official_by_hand(penalised) -> None:
    near(Remax(form="official")(penalised(8.0, 1.0)), [[4.9, 5.05]])
    near(Remax(form="official")(penalised(0.4, 0.4)), [[-0.1, 0.05]])


def test_official_discounts_also_at_the_last_action(make_batch) -> None:
    batch = make_batch([[0, 1, 0, 1]], [3.0], parts={"greedy": torch.tensor([1.0])})
    batch = batch.with_(outcome=torch.tensor([3.0]))
    near(Remax(form="official", gamma=0.5)(batch), [[0, 0.5, 0, 1.0]])


def test_as_good_as_greedy_is_exactly_zero(make_batch) -> None:
    batch = make_batch([[1, 1]] * 2, [0.1, 0.7], parts={"greedy": torch.tensor([0.1, 0.7])})
    assert not Remax()(batch).any()
    assert not Remax(form="official")(batch).any()


@pytest.mark.parametrize("form", ["to_go", "official"])
def test_an_unscored_greedy_answer_teaches_nothing(make_batch, form) -> None:
    parts = {"greedy": torch.tensor([math.nan, 0.0])}
    found = Remax(form=form)(make_batch([[1], [1]], [1.0, 1.0], group=[0, 1], parts=parts))
    assert found.tolist() == [[0.0], [1.0]]


def test_it_needs_the_greedy_part(make_batch) -> None:
    with pytest.raises(ValueError, match=r"part `greedy`.*greedy_baseline"):
        Remax()(make_batch([[1]], [1.0]))
    with pytest.raises(ValidationError, match="clip"):
        Remax(clip=0)


def test_it_is_found_by_name() -> None:
    assert Advantage.model_validate({"type": "remax", "form": "official"}) == Remax(form="official")
    assert Remax.needs_baseline
    assert not Remax.crosses_groups
