from __future__ import annotations

from trainer.advantages.base import Advantage
from trainer.advantages.identity import Identity


def test_one_on_every_action_whatever_the_reward(make_batch) -> None:
    batch = make_batch([[0, 1, 1], [1, 0, 0], [0, 0, 0]], [5.0, -1.0, 0.0])
    assert Identity()(batch).tolist() == [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert Advantage.model_validate("identity") == Identity()
