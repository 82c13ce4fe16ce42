from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.types import ScoreStatus


@pytest.mark.parametrize(
    ("fields", "reply", "answer", "value"),
    [
        ({}, "<answer>Paris</answer>", "paris", 1.0),
        ({}, "<answer>\n new  York\n</answer>", "New York", 1.0),
        ({}, "<answer>Paris.</answer>", "Paris", 0.0),
        ({"ignore_punctuation": True}, "<answer>Paris.</answer>", "Paris", 1.0),
        ({"ignore_case": False}, "<answer>paris</answer>", "Paris", 0.0),
        ({"ignore_space": False}, "<answer>New  York</answer>", "New York", 0.0),
        ({"extract": "all"}, " Paris ", "Paris", 1.0),
        ({"extract": "regex", "pattern": r"is (\w+)"}, "it is Rome, is Paris", "Paris", 1.0),
        ({"extract": "regex", "pattern": r"\d+"}, "1 2 3", 3, 1.0),
        ({"tag": "final"}, "<final>7</final>", 7, 1.0),
        ({}, "<answer>7</answer>", ["6", "7"], 1.0),
        ({}, "<answer>1</answer> then <answer>2</answer>", 2, 1.0),
    ],
)
def test_exact(values, fields, reply, answer, value):
    assert values({"type": "text/exact"} | fields, [reply], answer=answer) == [value]


def test_exact_without_answer_or_tag(grade):
    (untagged,) = grade("text/exact", ["Paris"], answer="Paris")
    assert (untagged.value, untagged.status) == (0.0, ScoreStatus.UNPARSABLE)
    (no_gold,) = grade("text/exact", ["<answer>x</answer>"])
    assert (no_gold.value, no_gold.status) == (None, ScoreStatus.NOT_APPLICABLE)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "text/exact", "extract": "regex"}, "go together"),
        ({"type": "text/exact", "pattern": "x"}, "go together"),
        ({"type": "text/regex", "pattern": "(x"}, "not a regular expression"),
        ({"type": "text/format", "layout": "custom"}, "go together"),
        ({"type": "text/choice", "letters": "A"}, "letters"),
    ],
)
def test_refuses(make_reward, spec, message):
    with pytest.raises(ValidationError, match=message):
        make_reward(spec)


@pytest.mark.parametrize(
    "reply",
    ["B", "(b)", "**B.**", "B. a cat", "The answer is B", "<answer>\nB\n</answer>", "I choose: B",
     r"\boxed{B}", r"\boxed{\text{B}}", "A? No. Answer: **B**", "option (B) is right", "It is B."],
)  # fmt: skip
def test_choice_reads_many_spellings(values, reply):
    assert values("text/choice", [reply], answer="B") == [1.0]
    assert values("text/choice", [reply], answer="(C) a dog") == [0.0]


def test_choice_edges(grade, values):
    (none,) = grade("text/choice", ["A cat, I think"], answer="A")
    assert (none.value, none.status) == (0.0, ScoreStatus.UNPARSABLE)
    (untagged,) = grade({"type": "text/choice", "require_tag": True}, ["B"], answer="B")
    assert untagged.status is ScoreStatus.UNPARSABLE
    assert values({"type": "text/choice", "letters": "ABCDEF"}, ["F"], answer="F") == [1.0]
    with pytest.raises(ValueError, match="names none of the letters ABCD"):
        grade("text/choice", ["B"], answer="7")


@pytest.mark.parametrize(
    ("reply", "strict", "lenient"),
    [
        ("<think>a</think><answer>b</answer>", 1, 1),
        ("  <think>\na\n</think>\n\n<answer>b</answer>\n", 1, 1),
        ("well <think>a</think><answer>b</answer>", 0, 1),
        ("<think>a</think> so <answer>b</answer> done", 0, 1),
        ("<answer>b</answer><think>a</think>", 0, 0),
        ("<think>a</think>", 0, 0),
        ("<think></think><answer>b</answer>", 0, 0),
        ("<think>a</think><answer> </answer>", 0, 0),
        ("<think>a<answer>b</answer></think>", 0, 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0, 0),
        ("", 0, 0),
    ],
)
def test_format_think_answer(values, reply, strict, lenient):
    assert values("text/format", [reply]) == [strict]
    assert values({"type": "text/format", "strict": False}, [reply]) == [lenient]


def test_format_answer_and_custom(values):
    answer = {"type": "text/format", "layout": "answer"}
    assert values(answer, ["<answer>4</answer>", "so <answer>4</answer>"]) == [1.0, 0.0]
    custom = {"type": "text/format", "layout": "custom", "pattern": r"a.*b"}
    assert values(custom, ["a\nb", "xa\nb"]) == [1.0, 0.0]
    assert values(custom | {"strict": False}, ["xa\nby"]) == [1.0]


def test_regex(values):
    spec = {"type": "text/regex", "pattern": "cat.dog"}
    assert values(spec, ["a cat\ndog b", "Cat dog", "cat"]) == [1.0, 0.0, 0.0]
    assert values(spec | {"dotall": False}, ["cat\ndog"]) == [0.0]
    assert values(spec | {"ignore_case": True}, ["CAT DOG"]) == [1.0]
    assert values(spec | {"match": "whole"}, ["cat dog ", "a cat dog"]) == [1.0, 0.0]
    assert values(spec | {"absent": True}, ["cat dog", "bird"]) == [0.0, 1.0]
