from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ops.edit_distance import levenshtein, similarity


def table(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@given(st.text("abé ", max_size=20), st.text("abé ", max_size=20))
def test_it_is_the_distance_of_the_full_table(a, b):
    assert levenshtein(a, b) == levenshtein(b, a) == table(a, b)


def test_words_and_edges():
    assert levenshtein(["Total:", "42", "USD"], ["Tota1:", "42", "US"]) == 2
    assert levenshtein("", "abc") == 3
    assert similarity("", "") == 1
    assert similarity("abcd", "abxy") == 0.5
    assert similarity("x", "") == 0


def test_a_page_is_quick():
    start = time.process_time()
    assert levenshtein("abcdefghij" * 1000, "bcdefghija" * 1000) == 2
    assert time.process_time() - start < 1


@pytest.mark.parametrize("size", [63, 64, 65, 129])
def test_word_boundaries_of_the_machine_do_not_matter(size):
    assert levenshtein("a" * size, "a" * (size - 1) + "b") == 1
