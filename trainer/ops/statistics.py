"""Intervals and pass@k for evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb

import numpy as np


def bootstrap(
    values: Sequence[float], *, level: float = 0.95, draws: int = 2000
) -> dict[str, float]:
    """Mean and percentile bootstrap interval: {mean, low, high, n}. Resampling is seeded, so equal
    values give equal intervals. Raises ValueError for no values."""
    if not len(values):
        raise ValueError("no values to average")
    sample = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(0).integers(0, len(sample), size=(draws, len(sample)))
    low, high = np.quantile(sample[picks].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return {"mean": float(sample.mean()), "low": float(low), "high": float(high), "n": len(sample)}


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that k of n answers, `correct` of them right, contain a right one: the unbiased
    estimator 1 - C(n-c, k) / C(n, k) (arXiv:2107.03374). Needs k <= n."""
    if not 0 < k <= n:
        raise ValueError(f"k = {k} must be in 1..{n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def majority(answers: Sequence[Hashable], values: Sequence[float], k: int) -> float:
    """Value of the most common of the first k answers; ties go to the one seen first."""
    counts = Counter(answers[:k])
    winner = max(counts, key=lambda a: (counts[a], -answers.index(a)))
    return float(values[answers.index(winner)])
