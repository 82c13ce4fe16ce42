from __future__ import annotations

import pytest

from trainer.types import ScoreStatus

OPTIONS = {"options": ["a red cat", "a blue dog"]}


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("Yes.", "yes", 1),
        ("(No), it is not", "no", 1),
        ("It is, yes", "yes", 0),
        ("B", "B", 1),
        ("(b)", "B", 1),
        ("the answer is B.", "b", 1),
        ("A blue dog.", "B", 0),
        ("blue dog", "B", 0),
        ("'Paris'.", "paris", 1),
        ("London", "paris", 0),
        ("<answer>No</answer>", "<answer>no</answer>", 1),
    ],
)
def test_match(values, answer, gold, value):
    assert values("text/match", [f"<answer>{answer}</answer>"], answer=gold, meta=OPTIONS) == [
        value
    ]


def test_the_text_of_the_option(values):
    meta = {"options": ["red cats", "blue dogs"]}
    assert values("text/match", ["Blue dogs."], answer="B", meta=meta) == [1.0]
    assert values("text/match", ["red cats"], answer="B", meta=meta) == [0.0]


def test_unparsable(grade):
    for reply, gold in (("blue", "B"), ("42", "yes")):
        (score,) = grade("text/match", [reply], answer=gold)
        assert (score.value, score.status) == (0.0, ScoreStatus.UNPARSABLE)
    assert grade("text/match", ["x"])[0].status is ScoreStatus.NOT_APPLICABLE
