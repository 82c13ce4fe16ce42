from __future__ import annotations

import pytest

from trainer.types import ScoreStatus

ROW = {"options": ["dark red", "blue", "green"]}


@pytest.mark.parametrize(
    ("thought", "choice", "value"),
    [
        ("it is Dark  red.", "1", 1),
        ("it is blue", "1", -1),
        ("it is dark red or blue", "1", -1),
        ("it is red", "1", -1),
        ("", "2", -1),
        ("blue\nthen\nit is\ngreen", "3", 1),
    ],
)
def test_the_choice_that_was_named(values, thought, choice, value):
    reply = f"<think>{thought}</think><answer>{choice}</answer>"
    assert values("text/consistent", [reply], meta=ROW) == [value]


def test_only_the_last_lines_count(values):
    reply = "blue\nthen\nit is\ngreen <answer>3</answer>"
    assert values({"type": "text/consistent", "lines": 4}, [reply], meta=ROW) == [-1]
    assert values({"type": "text/consistent", "lines": 1}, [reply], meta=ROW) == [1]


def test_labels_and_edges(grade):
    lettered = ROW | {"labels": ["A", "B", "C"]}
    replies = ["blue <answer>B</answer>", "blue <answer>4</answer>", "blue"]
    first, second, third = grade("text/consistent", replies, meta=lettered)
    assert first.value == 1
    assert second.status is third.status is ScoreStatus.UNPARSABLE
    assert (second.value, third.value) == (0, 0)
    absent = grade("text/consistent", ["x"], meta={})
    assert absent[0].status is ScoreStatus.NOT_APPLICABLE
