"""Spans of time (start, end) in a reply, and their overlap."""

from __future__ import annotations

import re
from collections.abc import Sequence

Interval = tuple[float, float]

_TIME = r"(?:[0-9]{1,3}:)?[0-9]{1,6}:[0-9]{2}(?:\.[0-9]{1,6})?|[0-9]{1,12}(?:\.[0-9]{0,12})?"
_BETWEEN = r"[\"']?\s{0,9}(?:s|sec|seconds)?\s{0,9}(?:,|-|\u2013|to|and)\s{0,9}"
_PAIR = re.compile(rf"(?<![\d.:])[\"']?({_TIME}){_BETWEEN}[\"']?({_TIME})(?![\d:])")
_NAMED = re.compile(
    rf"start(?:_time)?[\"']?\s*:\s*[\"']?({_TIME})[^0-9]{{1,30}}end(?:_time)?[\"']?\s*:\s*[\"']?({_TIME})"
)


def parse_intervals(text: str) -> list[Interval]:
    """Every `{"start_time": 1, "end_time": 2}`, or else every `1 to 2`, `1 - 2`, `[1, 2]`, numbers
    quoted or not, or as mm:ss and hh:mm:ss. Ends are not put in order."""
    found = _NAMED.findall(text) or _PAIR.findall(text)
    return [(seconds(start), seconds(end)) for start, end in found]


def seconds(text: str) -> float:
    """`90`, `1:30` and `00:01:30` are 90."""
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


def merged(spans: Sequence[Interval]) -> list[Interval]:
    """Overlapping and touching spans joined, in order."""
    joined: list[Interval] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def length(spans: Sequence[Interval]) -> float:
    """Total of spans that do not overlap."""
    return sum(end - start for start, end in spans)


def shared(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Length of the intersection of two merged lists."""
    return sum(max(0.0, min(e, f) - max(s, t)) for s, e in a for t, f in b)
