from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from trainer.filters.base import Filter
from trainer.types import Group, Prompt, Rollout, Score, Status

make = TypeAdapter(Filter).validate_python
WORKED = [(1, 1, 1, 1), (1, 0, 0, 0), (0, 0, 0, 0)]


def group(*values, statuses=(), parts=None):
    rollouts = [
        Rollout(score=Score(value=v, parts={"acc": (parts or values)[i]}))
        for i, v in enumerate(values)
    ]
    for rollout, status in zip(rollouts, statuses, strict=False):
        rollout.status = status
    return Group(Prompt("p", ()), rollouts)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((1, 1, 1), "zero variance: all 1"),
        ((0, 0, None), "zero variance: all 0"),
        ((1, 1 + 5e-7), "zero variance: all 1"),
        ((1, 1 + 5e-6), None),
        ((0, 1, None), None),
        ((1, None, None), "zero variance: all 1"),
        ((None, None), "zero variance: nothing scored"),
        ((1,), None),
    ],
)
def test_zero_variance(values, reason):
    assert make("zero_variance").why_drop(group(*values)) == reason


def test_zero_variance_looks_at_the_return_or_at_a_part():
    turns = group(1, 1)
    turns.rollouts[0].score.spans = {0: 0.5}
    assert make("zero_variance").why_drop(turns) is None
    turns.rollouts[1].score.tokens = {0: [0.25, 0.25]}
    assert make("zero_variance").why_drop(turns) == "zero variance: all 1.5"
    accuracy = {"type": "zero_variance", "part": "acc"}
    assert make(accuracy).why_drop(group(0.9, 0.8, parts=(1, 1))) == "zero variance: all 1"
    assert make(accuracy).why_drop(group(1, 1, parts=(1, 0))) is None


@pytest.mark.parametrize(("least", "dropped"), [(1, False), (2, False), (3, True)])
def test_failed(least, dropped):
    reason = make({"type": "failed", "min_scored": least}).why_drop(group(1, None, 0, None))
    assert reason == (f"failed: under {least} scored" if dropped else None)


def test_failed_counts_rollouts_without_a_score():
    assert make("failed").why_drop(Group(Prompt("p", ()), [Rollout(), Rollout()])) is not None


@pytest.mark.parametrize(("share", "dropped"), [(0, True), (0.25, True), (0.5, False)])
def test_overlong(share, dropped):
    half = group(1, 1, 1, 1, statuses=[Status.TRUNCATED, Status.TRUNCATED, Status.OK])
    reason = make({"type": "overlong", "max_share": share}).why_drop(half)
    assert reason == (f"overlong: over {share:.0%} truncated" if dropped else None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((1, 0, 0, 0, 0), None),  # 0.2: both ends are inside
        ((1, 1, 1, 1, 0), None),
        ((1, 1, 1, 1, 1), "accuracy band: mean over 0.8"),
        ((0, 0, None), "accuracy band: mean under 0.2"),
        ((0.25, 0.1), "accuracy band: mean under 0.2"),
        ((None, None), "accuracy band: nothing scored"),
        ((0.1,) * 3 + (0.3,) * 3, None),
    ],
)
def test_accuracy_band(values, reason):
    assert make("accuracy_band").why_drop(group(*values)) == reason


def test_accuracy_band_of_a_part_and_of_the_return():
    part = {"type": "accuracy_band", "part": "acc"}
    assert make(part).why_drop(group(5, 5, parts=(1, 0))) is None
    assert make(part).why_drop(group(0.5, 0.5, parts=(1, 1))) == "accuracy band: mean over 0.8"
    dense = group(0.5, 0.5)
    dense.rollouts[0].score.tokens = {0: [1.0]}
    assert make("accuracy_band").why_drop(dense) == "accuracy band: mean over 0.8"


def test_accuracy_band_names_its_ends():
    with pytest.raises(ValidationError, match=r"low 0.9 is above high 0.1"):
        make({"type": "accuracy_band", "low": 0.9, "high": 0.1})


def test_the_worked_example_of_dynamic_sampling():
    kept = [make("zero_variance").why_drop(group(*v)) is None for v in WORKED]
    assert kept == [False, True, False]


def test_a_greedy_baseline_counts_in_no_filter():
    alike = group(1, 1)
    alike.baseline = Rollout(score=Score(0.0), status=Status.TRUNCATED)
    assert make("zero_variance").why_drop(alike) == "zero variance: all 1"
    assert make({"type": "overlong", "max_share": 0}).why_drop(alike) is None
    assert make({"type": "failed", "min_scored": 3}).why_drop(alike) is not None
