"""Digits that enumerate combinations."""

from __future__ import annotations

from trainer.ops.digits import digits


def test_every_combination_once():
    assert digits(123, 10, 2) == ([3, 2], 1)
    assert digits(5, 3, 0) == ([], 5)
    seen = [digits(index, 3, 4) for index in range(3**4)]
    assert len({tuple(found) for found, _ in seen}) == 3**4
    assert all(left == 0 for _, left in seen)
