"""The rewards of VLM-R1 and Curr-ReFT that have no file of their own test."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from trainer.types import ScoreStatus

CATS = [["cat", [0, 0, 100, 100]], ["dog", [200, 200, 300, 300]], ["cat", [400, 0, 500, 80]]]
SEEN = [
    ("cat", [10, 0, 100, 100]),
    ("cat", [200, 200, 290, 310]),
    ("cat", [600, 600, 700, 700]),
    ("cat", [404, 0, 500, 80]),
]


def listed(items):
    return json.dumps([{"bbox_2d": box, "label": label} for label, box in items])


def test_referring_expressions(values):
    spec = {"type": "vision/iou", "inclusive": True, "pick": "first"}
    reply = '<answer>{"bbox_2d": [20, 30, 120, 130]}</answer>'
    assert values(spec, [reply], answer=[10, 10, 110, 110]) == [pytest.approx(0.5625)]
    hit = spec | {"threshold": 0.5, "above": True}
    assert values(hit, ["[30,20,130,120]"], answer=[10, 10, 110, 110]) == [1.0]
    assert values(hit, ["[0,0,100,50]"], answer=[0, 0, 100, 100]) == [0.0]


def test_weighted_score(grade, values):
    (score,) = grade("vision/weighted_detection", [listed(SEEN)], answer=CATS)
    assert score.value == pytest.approx(0.6965, abs=1e-4)
    assert score.parts["pos"] == pytest.approx(0.62, abs=1e-4)
    assert score.parts["comp"] == pytest.approx(0.875)
    assert score.parts["lab"] == pytest.approx(2 / 3)
    assert values("vision/weighted_detection", ["none", listed(SEEN)], answer=[]) == [1.0, 0.0]
    assert values("vision/weighted_detection", ["none"], answer=CATS) == [0.0]


@pytest.mark.parametrize(
    ("length", "right", "wrong"),
    [(0, 1, -0.5), (256, 0.926777, -0.426777), (1024, 0.5, 0), (2048, 0.5, 0)],
)
async def test_cosine_length(score, make_replies, make_reward, length, right, wrong):
    reward = make_reward({"type": "length/cosine", "reward": "none"})
    assert reward.value(length, *reward.right) == pytest.approx(right, abs=1e-6)
    assert reward.value(length, *reward.wrong) == pytest.approx(wrong, abs=1e-6)


async def test_cosine_length_asks_the_answer(score, make_replies):
    spec = {"type": "length/cosine", "reward": "text/exact", "max_tokens": 40}
    replies = ["<answer>4</answer>", "<answer>5</answer>", "4"]
    first, second, third = await score(spec, make_replies(replies, answer="4"))
    assert 0.5 < first.value < 1
    assert second.value < 0
    assert third.status is ScoreStatus.UNPARSABLE
    assert first.parts == {"answer": 1.0}


@pytest.mark.parametrize(
    ("fields", "reply", "value"),
    [
        ({"n": 20, "penalty": 2}, "a b c d e " * 6, -1.090909),
        ({"n": 20, "penalty": 2}, "a b c d e " * 3, 0),
        ({}, "one two three four five six seven", 0),
        ({"n": 1}, "a A a a", -0.75),
        ({"items": "boxes"}, listed([CATS[0], CATS[0], CATS[1], CATS[2]]), -0.25),
    ],
)
def test_repetition(values, fields, reply, value):
    spec = {"type": "text/repetition"} | fields
    assert values(spec, [reply]) == [pytest.approx(value, abs=1e-6)]


@pytest.mark.parametrize(
    ("answer", "gold", "first", "last"),
    [("Yes", "yes", 1, 1), ("not correct", "no", 0, 0), ("incorrect", "no", 1, 1),
     ("true? no", "no", 0, 1), ("No.", "yes", 0, 0)],
)  # fmt: skip
def test_yes_no(values, answer, gold, first, last):
    assert values("text/yes_no", [answer], answer=gold) == [first]
    assert values({"type": "text/yes_no", "order": "last"}, [answer], answer=gold) == [last]


def test_yes_no_edges(grade):
    assert grade("text/yes_no", ["maybe"], answer="yes")[0].status is ScoreStatus.UNPARSABLE
    with pytest.raises(ValueError, match="'maybe' is neither"):
        grade("text/yes_no", ["yes"], answer="maybe")


def test_letters(values, grade):
    assert values("text/letters", ["C,A", "A and C", "C"], answer="A,C") == [1.0, 1.0, 0.0]
    ordered = {"type": "text/letters", "ordered": True}
    assert values(ordered, ["C,A", "A,C", "A, A, C"], answer="A,C") == [0.0, 1.0, 1.0]
    assert values("text/letters", ["b"], answer=["B"]) == [1.0]
    assert grade("text/letters", ["none"], answer="A")[0].status is ScoreStatus.UNPARSABLE
    with pytest.raises(ValueError, match="names no letter"):
        grade("text/letters", ["A"], answer="7")


def test_label_sets(values):
    replies = ["cat, dog, car", "'Dog'; bus", "", "plane"]
    gold = "dog, cat, bus, person"
    assert values("text/label_set", replies[:2], answer=gold) == [0.4, 0.5]
    assert values({"type": "text/label_set", "kind": "recall"}, replies[:1], answer=gold) == [0.5]
    f1 = {"type": "text/label_set", "kind": "f1"}
    assert values(f1, replies, answer=gold) == [pytest.approx(4 / 7), pytest.approx(2 / 3), 0, 0]
    empty = ["<answer></answer>"]
    assert values("text/label_set", empty, answer=[]) == [0.0]
    assert values({"type": "text/label_set", "both_empty": 1}, empty, answer=[]) == [1.0]


@pytest.mark.parametrize(
    ("reply", "short", "window"),
    [
        ("<think>short</think>", 1, 0),
        ("<think> " + "x" * 10 + " </think>", 0, 0),
        ("<think>" + "x" * 20 + "</think>", 0, 1),
        ("<think>" + "x" * 31 + "</think>", 0, 0),
        ("<think></think>", 1, 0),
    ],
)
def test_characters(values, reply, short, window):
    assert values("length/characters", [reply]) == [short]
    assert values({"type": "length/characters", "least": 20, "most": 30}, [reply]) == [window]


def test_characters_edges(grade, make_reward):
    assert grade("length/characters", ["no tag"])[0].status is ScoreStatus.UNPARSABLE
    with pytest.raises(ValidationError, match="least 9 is above most 3"):
        make_reward({"type": "length/characters", "least": 9, "most": 3})
