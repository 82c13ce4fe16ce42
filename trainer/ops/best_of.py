"""Choosing one of several answers by a score of their steps (arXiv:2412.01981)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

Reduce = Literal["min", "sum", "mean", "last"]


def step_rewards(
    ratios: Sequence[float], ends: Sequence[int], scale: float, *, accumulate: bool = False
) -> list[float]:
    """The reward of each step from the log-ratios of its tokens: scale times their sum. `ends` are
    the last tokens of the steps, rising. `accumulate`: the sum from the answer's first token to
    the step's end instead. Raises ValueError for ends that do not rise or lie outside."""
    found, start = [], 0
    for end in ends:
        if not start <= end < len(ratios):
            raise ValueError(f"step ends {list(ends)} do not rise inside of {len(ratios)} tokens")
        found.append(scale * math.fsum(ratios[0 if accumulate else start : end + 1]))
        start = end + 1
    return found


def reduced(steps: Sequence[float], how: Reduce) -> float:
    """One number of an answer's step rewards; -inf without any: such an answer is never chosen."""
    if not steps:
        return -math.inf
    if how == "last":
        return steps[-1]
    return min(steps) if how == "min" else math.fsum(steps) / (len(steps) if how == "mean" else 1)


def best(scores: Sequence[float]) -> int:
    """Place of the highest score, the first of equals."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def votes(answers: Sequence[Hashable], scores: Sequence[float]) -> dict[Hashable, float]:
    """For each answer, in order of appearance, the sum of sigma(score) over who gave it."""
    found: dict[Hashable, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        found[answer] = found.get(answer, 0.0) + _sigmoid(score)
    return found


def elected(answers: Sequence[Hashable], scores: Sequence[float]) -> int:
    """Place of the first answer with the most votes, the first seen of equals."""
    counted = votes(answers, scores)
    return answers.index(max(counted, key=lambda a: (counted[a], -answers.index(a))))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
