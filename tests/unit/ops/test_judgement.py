"""Verdicts in what judges write."""

from __future__ import annotations

import pytest

from trainer.ops.judgement import Reading, choice, order
from trainer.ops.parsing import Unparsable

YES = Reading(by="words", words={"yes": 1, "no": 0})


@pytest.mark.parametrize(
    ("fields", "text", "value"),
    [
        ({}, "good <score>7</score>", 0.7),
        ({}, "<score>2</score> no, wait: <score>\n 9 \n</score>", 0.9),
        ({}, "<think><score>1</score></think> <score>8/10</score>", 0.8),
        ({"rescale": False}, "<score>7.5</score>", 7.5),
        ({"low": -1, "high": 1}, "<score>-1</score>", 0.0),
        ({"high": 1}, "<score>1/2</score>", 0.5),
        ({"words": {"good": 0.75}}, "<score>**Good**</score>", 0.75),
        ({"by": "json"}, 'so {"score": 3, "why": {"a": 1}} and {not json', 0.3),
        ({"by": "json"}, '{"score": 1} then {"score": "4"}', 0.4),
        ({"by": "json", "key": "v"}, '```json\n{"v": 10}\n```', 1.0),
        ({"by": "boxed"}, "so \\boxed{5}", 0.5),
        ({"by": "number"}, "3 of the steps are right: 6", 0.6),
        ({"by": "number", "take": "first"}, "7, for 2 of 3 words fit", 0.7),
        ({"by": "number", "take": "first", "clamp": True}, "Score: 15", 1.0),
        ({"clamp": True, "low": 1}, "<score>-3</score>", 0.0),
    ],
)
def test_numbers(fields, text, value):
    assert Reading(**fields).number(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["YES", " yes, it is", "**Yes**.", "<think>no?</think>Yes"])
def test_words(text):
    assert YES.number(text) == 1


@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (Reading(), ""),
        (Reading(), "a fine answer"),
        (Reading(), "<score>7"),
        (Reading(), "<score></score>"),
        (Reading(), "<score>11</score>"),
        (Reading(), "<score>7 or 8</score>"),
        (Reading(), "<score>٧</score>"),  # noqa: RUF001
        (Reading(), "<score>1/0</score>"),
        (Reading(), "<think>hm <score>7</score>"),
        (Reading(), "<score>7</score></think>"),
        (Reading(by="json"), '{"score": true}'),
        (Reading(by="json"), '{"score": 1e999}'),
        (Reading(by="json"), '{"score": NaN}'),
        (Reading(by="json"), '{"other": 1}'),
        (Reading(by="json"), "{" * 100_000),
        (Reading(by="boxed"), "5"),
        (YES, 'the answer "YES" is wrong'),
        (YES, "yesterday"),
        (YES, "..."),
    ],
)
def test_unreadable(reading, text):
    with pytest.raises(Unparsable):
        reading.number(text)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="low: 1 must be below high: 1"):
        Reading(low=1, high=1)
    with pytest.raises(ValueError, match="words: needed by"):
        Reading(by="words")
    with pytest.raises(ValueError, match=r"words\.yes: must be a finite number"):
        Reading(words={"yes": float("nan")})


def test_choices():
    sides = ("A", "B", "tie")
    assert choice("A? <verdict>[b]</verdict>", sides, "verdict") == "B"
    assert choice("<verdict>TIE.</verdict>", sides, "verdict") == "tie"
    for text in ("A", "<verdict>both</verdict>", "<verdict>A and B</verdict>", ""):
        with pytest.raises(Unparsable):
            choice(text, sides, "verdict")


def test_orders():
    assert order("<order>3 > 1 > 2</order>", 3, "order") == [2, 0, 1]
    assert order("<order>[2, 1]</order>", 2, "order") == [1, 0]
    for text in ("2 > 1", "<order>1 > 1</order>", "<order>1</order>", "<order>1>2>3</order>"):
        with pytest.raises(Unparsable):
            order(text, 2, "order")
