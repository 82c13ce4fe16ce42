"""Curves in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """At most `width` bars from the smallest to the largest value, each the mean of its share of
    the values. "" for none; a flat line for equal values."""
    if not values:
        return ""
    n = min(width, len(values))
    edges = [round(i * len(values) / n) for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return BARS[0] * n
    top = len(BARS) - 1
    return "".join(BARS[round((mean - low) / (high - low) * top)] for mean in means)
