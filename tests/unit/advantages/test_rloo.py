"""Numbers worked out by hand from the formula of arXiv:2402.14740."""

from __future__ import annotations

import pytest
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.dr_grpo import DrGrpo
from trainer.advantages.rloo import Rloo


def test_by_hand(make_batch) -> None:
    batch = make_batch([[0, 1]] * 4, [1.0, 0.0, 0.0, 0.5])
    found = Rloo()(batch)
    assert found[:, 1].tolist() == pytest.approx([0.833333, -0.5, -0.5, 0.166667], abs=1e-6)
    assert_close(found, DrGrpo()(batch) * 4 / 3)


def test_pair(make_batch) -> None:
    assert Rloo()(make_batch([[1], [1]], [1.0, 0.0])).flatten().tolist() == [1.0, -1.0]


def test_no_baseline_no_advantage(make_batch) -> None:
    batch = make_batch([[1]] * 4, [0.3, 0.3, 0.3, 5.0], group=[0, 0, 0, 1])
    assert not Rloo()(batch).any()


def test_the_size_is_that_of_the_group_that_is_there(make_batch) -> None:
    batch = make_batch([[1]] * 5, [3.0, 0.0, 0.0, 1.0, 0.0], group=[0, 0, 0, 1, 1])
    assert Rloo()(batch).flatten().tolist() == pytest.approx([3.0, -1.5, -1.5, 1.0, -1.0])


def test_it_is_found_by_name() -> None:
    assert Advantage.model_validate("rloo") == Rloo()
