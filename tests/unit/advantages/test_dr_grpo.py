"""Numbers worked out by hand from the formula of arXiv:2503.20783."""

from __future__ import annotations

import pytest

from trainer.advantages.base import Advantage
from trainer.advantages.dr_grpo import DrGrpo


def test_by_hand(make_batch) -> None:
    found = DrGrpo()(make_batch([[0, 1]] * 4, [1.0, 1.0, 0.0, 0.5]))
    assert found[:, 1].tolist() == pytest.approx([0.375, 0.375, -0.625, -0.125], abs=1e-6)
    assert not found[:, 0].any()


def test_equal_returns_and_single_rows_give_exactly_zero(make_batch) -> None:
    batch = make_batch([[0, 1]] * 4, [0.3, 0.3, 0.3, 5.0], group=[0, 0, 0, 1])
    assert not DrGrpo()(batch).any()


def test_it_is_found_by_name() -> None:
    assert Advantage.model_validate("dr_grpo") == DrGrpo()
