from __future__ import annotations

import time
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ops.assignment import best_first_pairs, best_pairs, greedy_pairs

TABLES = st.integers(1, 5).flatmap(
    lambda columns: st.lists(
        st.lists(st.floats(-9, 9), min_size=columns, max_size=columns), min_size=1, max_size=5
    )
)


@given(TABLES)
def test_no_other_matching_is_better(gain):
    rows, columns = len(gain), len(gain[0])
    pairs = best_pairs(gain)
    assert len(pairs) == min(rows, columns)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    if rows <= columns:
        every = [list(enumerate(p)) for p in permutations(range(columns), rows)]
    else:
        every = [[(r, c) for c, r in enumerate(p)] for p in permutations(range(rows), columns)]
    best = max(sum(gain[r][c] for r, c in one) for one in every)
    assert sum(gain[r][c] for r, c in pairs) == pytest.approx(best, abs=1e-9)


def test_greedy_orders():
    gain = [[0.5, 0.5], [0.9, 0.2]]
    assert greedy_pairs(gain, 0.4) == [(0, 0)]
    assert greedy_pairs(gain, 0.4, later=True) == [(0, 1), (1, 0)]
    assert best_first_pairs(gain, 0.4) == [(1, 0), (0, 1)]
    assert best_first_pairs(gain, 0.6) == [(1, 0)]
    assert best_pairs(gain) == [(0, 1), (1, 0)]


def test_nothing_to_match():
    assert (
        best_pairs([]) == best_pairs([[]]) == greedy_pairs([], 0) == best_first_pairs([], 0) == []
    )


def test_a_hundred_by_a_hundred_is_quick():
    gain = [[((7 * r + 13 * c) % 101) / 101 for c in range(100)] for r in range(100)]
    start = time.process_time()
    assert len(best_pairs(gain)) == 100
    assert time.process_time() - start < 2
