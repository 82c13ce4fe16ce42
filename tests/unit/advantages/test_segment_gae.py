"""Numbers of the worked example of VL-DAC: turns as actions."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainer.advantages.base import Advantage
from trainer.advantages.gae import Gae
from trainer.advantages.segment_gae import SegmentGae

MASK = [[0, 1, 1, 0, 1, 1, 1, 0, 1]]
TURN = torch.tensor([[-1, 0, 0, -1, 1, 1, 1, -1, 2]])
VALUES = torch.tensor([[9.0, 0.2, 7, 8, 0.3, 6, 6, 5, 0.6]])
A = [0.56761, 0.582, 0.4]
RETURNS = [0.76761, 0.882, 1.0]


def wide(by_turn: list[float]) -> list[float]:
    a, b, c = by_turn
    return [0, a, a, 0, b, b, b, 0, c]


def test_by_hand(make_batch) -> None:
    batch = make_batch(MASK, [1.0], turn=TURN, values=VALUES)
    gae = SegmentGae(gamma=0.9, lam=0.95)
    assert gae(batch)[0].tolist() == pytest.approx(wide(A), abs=1e-6)
    assert gae.returns(batch)[0].tolist() == pytest.approx(wide(RETURNS), abs=1e-6)


def test_a_tools_reward_belongs_to_the_turn_before_it(make_batch) -> None:
    batch = make_batch(MASK, turn=TURN, values=torch.zeros(1, 9))
    rewards = torch.zeros(1, 9)
    rewards[0, 3] = 1.0
    found = SegmentGae(gamma=0.9, lam=1.0)(batch.with_(rewards=rewards))
    assert found[0].tolist() == wide([1.0, 0.0, 0.0])


def test_over_steps(make_batch) -> None:
    ends = torch.tensor([[False, False, True, False, False, False, True, False, False]])
    batch = make_batch(MASK, [1.0], turn=TURN, values=VALUES, extra={"step_end": ends})
    gae = SegmentGae(level="step", gamma=0.9, lam=0.95)
    assert gae(batch)[0].tolist() == pytest.approx(wide(A), abs=1e-6)


def test_one_token_per_turn_is_plain_gae(make_batch) -> None:
    torch.manual_seed(0)
    mask = [[1, 1, 1, 1], [1, 1, 0, 0]]
    turn = torch.tensor([[0, 1, 2, 3], [0, 1, -1, -1]])
    batch = make_batch(mask, [1.0, -0.5], turn=turn, values=torch.randn(2, 4))
    for whiten in (False, True):
        own = SegmentGae(gamma=0.9, lam=0.8, whiten=whiten)
        plain = Gae(gamma=0.9, lam=0.8, whiten=whiten)
        assert_close(own(batch), plain(batch))
        assert_close(own.returns(batch), plain.returns(batch))
        assert own.crosses_groups == whiten


def test_rows_without_actions(make_batch) -> None:
    empty = make_batch([[0, 0], [0, 1]], [0.0, 1.0], values=torch.ones(2, 2))
    empty = empty.with_(turn=torch.tensor([[-1, -1], [-1, 0]]))
    assert SegmentGae()(empty).tolist() == [[0, 0], [0, 0]]
    assert SegmentGae().returns(empty).tolist() == [[0, 0], [0, 1]]


def test_it_needs_values(make_batch) -> None:
    with pytest.raises(ValueError, match="segment_gae needs values"):
        SegmentGae()(make_batch([[1]], [1.0]))
    made = Advantage.model_validate({"type": "segment_gae", "level": "step"})
    assert made == SegmentGae(level="step")
    assert "values" in made.needs
