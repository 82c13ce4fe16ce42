from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ops.parsing import LONGEST, Field, Unparsable, answer_field, tag_fields, unwrapped

PIECES = st.lists(
    st.sampled_from(["<answer>", "</answer>", "<think>", "</think>", " ", "\n", "a", "7", "é"])
).map("".join)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>7</answer>", "7"),
        ("<answer>\n 1,\n 2 \n</answer>", "1,\n 2"),
        ("<answer>1</answer> no, <answer>2</answer>", "2"),
        ("<answer>1</answer> <answer></answer>", "1"),
        ("<answer>1</answer> <answer>cut off", "1"),
        ("<answer>a<answer>b</answer>", "b"),
        ("<answer>a<answer>b</answer>c</answer>", "b"),
        ("</answer><answer>x</answer>", "x"),
        ("no tag", "no tag"),
        ("<answer>never closed", "<answer>never closed"),
    ],
)
def test_the_last_valid_answer_with_its_place(reply, answer):
    field = answer_field(reply)
    assert field.text == answer == reply[field.start : field.end]


@pytest.mark.parametrize(
    ("reply", "options", "reason"),
    [
        ("7", {"require_tag": True}, "no <answer>...</answer> in the reply"),
        ("<answer></answer>", {}, "<answer> is empty"),
        ("<answer>1</answer><answer>2</answer>", {"strict": True}, "2 <answer> and 2 </answer>"),
        ("<answer>a<answer>b</answer>", {"strict": True}, "2 <answer> and 1 </answer>"),
        ("</answer>7<answer>", {"strict": True}, "no <answer>"),
        ("<answer>" + "1" * (LONGEST + 1) + "</answer>", {}, f"has {LONGEST + 1} characters"),
    ],
)
def test_what_cannot_be_read_says_why(reply, options, reason):
    with pytest.raises(Unparsable) as caught:
        answer_field(reply, **options)
    assert reason in str(caught.value)


@given(st.text() | PIECES)
def test_fields_are_where_they_say(reply):
    for field in tag_fields(reply, "answer"):
        assert field.text == reply[field.start : field.end] == field.text.strip()
        assert reply[: field.start].rstrip().endswith("<answer>")
    try:
        field = answer_field(reply)
    except Unparsable:
        return
    assert field.text == reply[field.start : field.end]


def test_nested_fields_and_unwrapping():
    nested = tag_fields("<a>1<a>2</a>3</a> <a> 4 </a>", "a")
    assert nested == [Field("2", 7, 8), Field("4", 22, 23)]
    assert unwrapped("<answer>cat</answer>") == "cat"
    assert unwrapped(" cat ") == "cat"


@pytest.mark.parametrize(
    "piece", ["<answer>", "</answer>", "<answer></answer>", "<answer>7</answer>", "<", " ", "7 "]
)
def test_ten_megabytes_take_no_time(piece):
    reply = piece * (10_000_000 // len(piece))
    start = time.process_time()
    for options in ({}, {"strict": True}, {"require_tag": True}):
        try:
            answer_field(reply, **options)
        except Unparsable:
            continue
    assert time.process_time() - start < 1
