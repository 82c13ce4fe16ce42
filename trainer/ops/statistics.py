"""Intervals and pass@k for evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from math import comb
from statistics import fmean, stdev

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


def bootstrap_of(
    statistic: Callable[[Sequence[int]], float | None],
    n: int,
    *,
    level: float = 0.95,
    draws: int = 300,
) -> dict[str, float] | None:
    """As `bootstrap`, of a statistic that is no mean: a function of the places, 0 to n - 1, of the
    values that count, some of them several times. None where it is None of all; draws of which it
    is None are left out."""
    whole = statistic(range(n))
    if whole is None:
        return None
    picks = np.random.default_rng(0).integers(0, n, size=(draws, n)).tolist()
    found = [value for pick in picks if (value := statistic(pick)) is not None]
    low, high = np.quantile(found or [whole], [(1 - level) / 2, (1 + level) / 2])
    return {"mean": whole, "low": float(low), "high": float(high), "n": n}


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


STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


def student(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % interval mean +- t s / sqrt(n) (s unbiased, t with n - 1 degrees of freedom):
    {mean, low, high, n}. For a handful of seeds, where a bootstrap would be far too narrow. One
    value: low and high are the mean. Raises ValueError for no values."""
    if not len(values):
        raise ValueError("no values to average")
    n, mean = len(values), fmean(values)
    if n == 1:
        return {"mean": mean, "low": mean, "high": mean, "n": 1}
    t = STUDENT[n - 2] if n - 2 < len(STUDENT) else 1.96 + 2.42 / (n - 1)
    half = t * stdev(values) / n**0.5
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}
