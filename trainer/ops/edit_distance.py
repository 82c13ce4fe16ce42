"""Levenshtein distance: least number of insertions, deletions and substitutions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def levenshtein(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Distance of two sequences (texts, or lists of words).

    A column of the table is kept in the bits of one integer (Myers 1999, as Hyyrö 2003 has it), so
    a page of 10,000 characters against another takes a tenth of a second.
    """
    if len(a) > len(b):
        a, b = b, a
    if not a:
        return len(b)
    where: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        where[item] = where.get(item, 0) | 1 << i
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    up, down, distance = full, 0, len(a)
    for item in b:
        same = where.get(item, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        right = down | (full & ~(diagonal | up))
        left = diagonal & up
        if right & last:
            distance += 1
        elif left & last:
            distance -= 1
        right = (right << 1 | 1) & full
        left = left << 1 & full
        up = left | (full & ~(diagonal | right))
        down = right & diagonal
    return distance


def similarity(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """1 - distance / length of the longer, in [0, 1]; 1 for two empty ones."""
    longest = max(len(a), len(b))
    return 1 - levenshtein(a, b) / longest if longest else 1.0
