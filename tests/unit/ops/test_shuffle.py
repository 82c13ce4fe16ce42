from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ops.shuffle import permuted, stable_hash


@given(size=st.integers(1, 300), key=st.text(max_size=8))
def test_every_item_comes_exactly_once(size, key):
    assert sorted(permuted(i, size, key) for i in range(size)) == list(range(size))


def test_another_key_is_another_order():
    orders = {tuple(permuted(i, 50, str(key)) for i in range(50)) for key in range(20)}
    assert len(orders) == 20


def test_the_first_place_is_uniform():
    counts = [0] * 5
    for key in range(2000):
        counts[permuted(0, 5, str(key))] += 1
    assert min(counts) > 320  # 400 expected, standard deviation 18


def test_huge_sizes_need_no_memory():
    size = 2**31
    items = {permuted(i, size, "k") for i in range(500)}
    assert len(items) == 500
    assert max(items) > size // 2


def test_order_never_changes():
    """Held-out sets of old runs must stay what they were."""
    assert [permuted(i, 10, "holdout") for i in range(10)] == [2, 4, 5, 8, 0, 6, 7, 3, 9, 1]
    assert stable_hash("a") == 11494053157100649449


@pytest.mark.parametrize("position", [-1, 4])
def test_a_place_outside_is_refused(position):
    with pytest.raises(IndexError, match="of 4"):
        permuted(position, 4, "k")
