"""ROUGE F scores of words: overlap of n-grams, and the longest common subsequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence


def rouge_n(given: Sequence[Hashable], right: Sequence[Hashable], n: int) -> float:
    """F1 of the n-grams, counted with their numbers; 0 if either has none."""
    a = Counter(tuple(given[i : i + n]) for i in range(len(given) - n + 1))
    b = Counter(tuple(right[i : i + n]) for i in range(len(right) - n + 1))
    return _f1((a & b).total(), a.total(), b.total())


def rouge_l(given: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """F1 of the longest common subsequence."""
    return _f1(common(given, right), len(given), len(right))


def common(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence; the table's columns are bits of an integer."""
    where: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        where[item] = where.get(item, 0) | 1 << i
    full = (1 << len(a)) - 1
    open_ = full
    for item in b:
        hit = open_ & where.get(item, 0)
        open_ = ((open_ + hit) | (open_ - hit)) & full
    return len(a) - open_.bit_count()


def _f1(hits: int, given: int, right: int) -> float:
    return 2 * hits / (given + right) if hits else 0.0
