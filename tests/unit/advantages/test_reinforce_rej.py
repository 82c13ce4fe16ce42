"""Numbers of the worked example of Reinforce-Rej (arXiv:2504.11343)."""

from __future__ import annotations

from trainer.advantages.base import Advantage
from trainer.advantages.reinforce_rej import ReinforceRej


def test_by_hand(make_batch) -> None:
    returns = [1.0] * 4 + [1.0, -1.0, -1.0, -1.0]
    batch = make_batch([[0, 1]] * 8, returns, group=[0] * 4 + [1] * 4)
    assert ReinforceRej()(batch)[:, 1].tolist() == [0, 0, 0, 0, 1, -1, -1, -1]
    assert not ReinforceRej()(batch)[:, 0].any()


def test_a_row_at_the_mean_of_a_mixed_group_keeps_its_reward(make_batch) -> None:
    batch = make_batch([[1]] * 3, [0.0, 0.5, 1.0])
    assert ReinforceRej()(batch).flatten().tolist() == [0, 0.5, 1]


def test_a_group_of_one_keeps_its_reward(make_batch) -> None:
    batch = make_batch([[1]] * 3, [0.1, 0.1, 0.7], group=[0, 0, 5])
    found = ReinforceRej()(batch).flatten().tolist()
    assert found[:2] == [0, 0]
    assert round(found[2], 6) == 0.7


def test_it_is_found_by_name() -> None:
    assert Advantage.model_validate("reinforce_rej") == ReinforceRej()
    assert not ReinforceRej.crosses_groups
