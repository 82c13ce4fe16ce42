from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ops.text import (
    choice_letter,
    last_boxed,
    last_integer,
    last_number,
    normalise,
    stated_answer,
    tag_content,
    text_of,
    tightened,
    without_boxed,
)

PIECES = st.lists(
    st.sampled_from(
        ["<answer>", "</answer>", r"\boxed{", r"\boxed {", "{", "}", r"\{", r"\}", "\\", "\n",
         " ", "B", "(b)", "answer is", "*", "3", "-1,234.5", "7/8", ",", ".", "[", "]", "seven",
         "é"]
    )
).map("".join)  # fmt: skip
TEXT = st.text() | PIECES
FINDERS = [choice_letter, last_boxed, last_integer, last_number, normalise, tag_content, tightened]


@given(TEXT)
def test_never_raises(text):
    for find in FINDERS:
        found = find(text)
        assert found is None or isinstance(found, int | str)


@given(TEXT, TEXT.filter(lambda t: "<answer>" not in t and "</answer>" not in t), TEXT)
def test_the_last_complete_tag_is_found(before, inside, after):
    after = after.replace("</answer>", "")
    assert tag_content(f"{before}<answer>{inside}</answer>{after}") == inside.strip()


@given(TEXT)
def test_a_box_is_balanced(text):
    inside = last_boxed(text)
    if inside is not None:
        bare = re.sub(r"\\.", "", inside)
        assert bare.count("{") == bare.count("}")
        assert inside in text


@given(st.integers(-(10**17), 10**17), PIECES)
def test_the_last_integer_is_found(number, before):
    assert last_integer(f"{before} ; {number}") == number
    assert last_number(f"{before} ; {number:,}") == str(number)


@pytest.mark.parametrize("find", FINDERS)
@pytest.mark.parametrize(
    "piece", ["<answer>", "</answer>", r"\boxed{", r"\boxed ", "{", "}", "1,", "123,", "9", " ",
              "A ", "answer is ", "*", "(", "one", "1/", "+."]
)  # fmt: skip
def test_linear_in_hostile_text(find, piece):
    start = time.process_time()
    find(piece * 20_000)
    assert time.process_time() - start < 2  # quadratic takes ten times as long


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<answer>a</answer>", "a"),
        ("<answer>\n a\nb \n</answer>", "a\nb"),
        ("<answer>a</answer><answer>b</answer>", "b"),
        ("<answer>a</answer><answer>b", "a"),
        ("<answer>a<answer>b</answer>", "b"),
        ("<answer>a</answer></answer>", "a"),
        ("<answer></answer>", ""),
        ("</answer><answer>", None),
        ("a", None),
    ],
)
def test_tag_content(text, found):
    assert tag_content(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"{ \boxed{1}", "1"),
        (r"} \boxed{1}", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \boxed{b}}", "b"),
        (r"\fbox {c}", "c"),
        (r"\boxed 5", None),
        ("", None),
    ],
)
def test_last_boxed(text, found):
    assert last_boxed(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("is 42.", "42"),
        ("$1,234.50", "1234.50"),
        ("-3", "-3"),
        ("x=7", "7"),
        ("2/3 of", "2/3"),
        ("1 2 3", "3"),
        ("v2x", None),
        ("none", None),
    ],
)
def test_last_number(text, found):
    assert last_number(text) == found


def test_last_integer():
    assert last_integer("1. seven") == 7
    assert last_integer("1. seven", words=False) == 1
    assert last_integer("3 then 2.5 then 1/2") == 3
    assert last_integer("9" * 400) is None


def test_normalise():
    assert normalise("  A  b.\n") == "a b."
    assert normalise(" A  b. ", case=False, space=False) == "A  b."
    assert normalise("(A-b).", punctuation=True) == "ab"


def test_text_of():
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert text_of(parts) == "ab"
    assert (text_of("c"), text_of(None)) == ("c", "")


@pytest.mark.parametrize(
    ("reply", "vote"),
    [
        ("<think>1</think><answer> 4 </answer>", "4"),
        (r"so \boxed{4}.", "4"),
        (r"\boxed{3} <answer>4</answer>", "4"),
        (" four ", "four"),
    ],
)
def test_stated_answer(reply, vote):
    assert stated_answer(reply) == vote


def test_without_boxed():
    assert without_boxed(r"a \boxed{b \boxed{c} {d}} e \boxed{} f") == "a  e  f"
    assert without_boxed(r"\boxed{a} \boxed{b") == r" \boxed{b"
    assert without_boxed(r"{x} \} }") == r"{x} \} }"


@given(TEXT)
def test_a_text_without_a_box_stays(text):
    if last_boxed(text) is None:
        assert without_boxed(text) == text


@given(st.text(alphabet="a <>/\t\n\u00a0\x1c", max_size=30))
def test_blanks_around_tags_go(text):
    assert tightened(text) == re.sub(r"\s*([<>/])\s*", r"\1", text)


def test_it_changes_mathematics_too():
    assert tightened(" < think > 1 / 2 < 3 </ think >\n") == "<think>1/2<3</think>"
