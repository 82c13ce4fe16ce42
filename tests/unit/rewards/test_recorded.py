"""Labels of the data, by the place of the answer in its list."""

from __future__ import annotations

from trainer.rewards.recorded import Recorded
from trainer.types import Prompt, Rollout, ScoreStatus


def graded(label: object, place: int | None = None):
    rollout = Rollout(meta={} if place is None else {"recorded": place})
    return Recorded().grade(rollout, Prompt("p", (), meta={"correctness": label}))


def test_labels():
    assert graded([True, False], 0) == 1.0
    assert graded([True, False], 1) == 0.0
    assert graded(0.25) == 0.25
    assert graded(True, 3) == 1.0


def test_what_has_none_does_not_apply():
    for found in (graded(None), graded([True], 1), graded([None], 0)):
        assert (found.value, found.status) == (None, ScoreStatus.NOT_APPLICABLE)


def test_the_column_is_a_need():
    assert Recorded(column="label").needs == {"meta.label"}
