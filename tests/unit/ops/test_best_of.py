"""The worked numbers of arXiv:2412.01981, then the edges."""

from __future__ import annotations

import math

import pytest

from trainer.ops.best_of import best, elected, reduced, step_rewards, votes

FIRST = [0.4, -0.1, 0.3, -0.9, 0.2, 0.5, 0.1]
SECOND = [0.1, 0.1, -0.2, 0.1, 0.3]


def test_steps_and_the_best_of_two():
    first = step_rewards(FIRST, [2, 4, 6], 0.05)
    second = step_rewards(SECOND, [1, 3, 4], 0.05)
    assert first == pytest.approx([0.030, -0.035, 0.030])
    assert second == pytest.approx([0.010, -0.005, 0.015])
    scores = [reduced(first, "min"), reduced(second, "min")]
    assert scores == pytest.approx([-0.035, -0.005])
    assert best(scores) == 1


def test_other_reductions():
    steps = step_rewards(FIRST, [2, 4, 6], 0.05)
    assert reduced(steps, "sum") == pytest.approx(0.025)
    assert reduced(steps, "mean") == pytest.approx(0.025 / 3)
    ends = step_rewards(FIRST, [2, 4, 6], 0.05, accumulate=True)
    assert ends == pytest.approx([0.030, -0.005, 0.025])
    assert reduced(ends, "last") == pytest.approx(0.025)


def test_the_vote():
    answers, scores = [7, 9, 7, 8], [-0.035, -0.005, -0.010, 0.002]
    expected = {7: 0.988751, 9: 0.498750, 8: 0.500500}
    assert votes(answers, scores) == pytest.approx(expected, abs=1e-6)
    assert best(scores) == 3
    assert answers[elected(answers, scores)] == 7


def test_edges():
    assert reduced([], "min") == -math.inf
    assert best([-math.inf, -math.inf]) == 0
    assert best([1.0, 1.0]) == 0
    assert elected(["a", "b"], [0.0, 0.0]) == 0
    assert votes(["a", "b"], [-math.inf, 1e9]) == {"a": 0.0, "b": 1.0}
    with pytest.raises(ValueError, match="do not rise"):
        step_rewards(FIRST, [2, 2], 1.0)
    with pytest.raises(ValueError, match="do not rise"):
        step_rewards(FIRST, [7], 1.0)
