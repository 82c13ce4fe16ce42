from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ops.detections import Detection, fenced, gold_detections, parse_detections
from trainer.ops.parsing import Unparsable

A, B = (1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.5, 8.0)


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox_2d": [5, 6, 7.5, 8], "label": "dog"}]',
        "[{'Position': [1, 2, 3, 4], 'class': 'cat'}, {'bbox': [5, 6, 7.5, 8], 'name': 'dog'}]",
        '```json\n[{"box": [1,2,3,4], "label": "cat"},\n{"box": [5,6,7.5,8], "label": "dog"}]\n```',
        'Here: [{"box": [1,2,3,4], "label": "cat"}, {"box": [5,6,7.5,8], "label": "dog"}], done',
        '[{"box": [1,2,3,4], "label": "cat"}, {"box": [5,6,7.5,8], "label": "dog"}, {"box": [9, 1',
    ],
)
def test_lists_in_many_spellings(text):
    assert parse_detections(text) == [Detection(A, "cat"), Detection(B, "dog")]


def test_boxes_without_labels_and_single_items():
    assert parse_detections("[[1,2,3,4],[5,6,7.5,8]]") == [Detection(A), Detection(B)]
    assert parse_detections("[1,2,3,4]") == [Detection(A)]
    assert parse_detections("(1,2),(3,4) and [5,6,7.5,8]") == [Detection(A), Detection(B)]
    one = '{"Position": [1,2,3,4], "Confidence": 0.9}'
    assert parse_detections(one) == [Detection(A, "", 0.9)]


@pytest.mark.parametrize("text", ["None", "[]", "No Objects.", "```json\n[]\n```", " none\n"])
def test_an_empty_list_is_an_answer(text):
    assert parse_detections(text) == []


def test_an_invalid_item_stays_as_a_prediction_without_a_box():
    text = json.dumps([{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [9, 9, 1, 1]}, {"label": "x"}, 7])
    assert [item.box for item in parse_detections(text)] == [A, None, None, None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a cat", "no box"),
        ("[1,2,3,4,5]", "5 numbers where a box has 4"),
        ('[{"bbox_2d": [1,2,3,4,5]}]', "5 numbers where a box has 4"),
        ('[{"bbox_2d": [5,5,1,1]}]', "corners out of order"),
        ('[{"bbox_2d": [NaN,5,1,1]}]', "no finite number"),
        ('[{"bbox_2d": [1e999,5,1,1]}]', "no finite number"),
        ('[{"bbox_2d": [' + "9" * 5000 + ",5,1,1]}]", "no finite number"),
        ('[{"bbox_2d": null}]', "no box in the list"),
        ("[NaN, 1, 2, 3]", "no finite number"),
        ("[[1,2,3,4]" + ",[1,2,3,4]" * 1000 + "]", "1001 items"),
    ],
)
def test_what_is_no_list_says_why(text, reason):
    with pytest.raises(Unparsable, match=reason):
        parse_detections(text)


def test_strict_is_the_list_alone():
    assert parse_detections("```json\n[[1,2,3,4]]\n```", strict=True) == [Detection(A)]
    for text in ("here [[1,2,3,4]]", "[{'bbox': [1,2,3,4]}]", "(1,2),(3,4)"):
        with pytest.raises(Unparsable, match="no JSON list"):
            parse_detections(text, strict=True)


def test_gold_lists():
    assert gold_detections([["cat", [1, 2, 3, 4]]]) == [Detection(A, "cat")]
    assert gold_detections([1, 2, 3, 4]) == [Detection(A)]
    assert gold_detections("[{'Position': [1,2,3,4], 'Confidence': 1}]") == [Detection(A, "", 1.0)]
    assert gold_detections([]) == []
    for wrong in ([[5, 5, 1, 1]], "a cat", [["cat"]]):
        with pytest.raises(ValueError, match="box"):
            gold_detections(wrong)


def test_fences():
    assert fenced("a ```json\n1\n``` b ```\n2\n``` c").strip() == "2"
    assert fenced("```json\n[1").strip() == "[1"
    assert fenced("no fence") == "no fence"


SYMBOLS = st.lists(
    st.sampled_from(["[", "]", "{", "}", '"bbox_2d"', ":", ",", "1", "-2.5", "1e9", "'", "```",
                     "json", "NaN", "Infinity", "null", "true", '"label"', '"a"', " ", "\n", "\\"])
).map("".join)  # fmt: skip


@given(st.text() | SYMBOLS, st.booleans())
def test_never_anything_but_unparsable(text, strict):
    try:
        found = parse_detections(text, strict=strict)
    except Unparsable:
        return
    assert all(item.box is None or item.box[2] > item.box[0] for item in found)


@pytest.mark.parametrize("piece", ["[", "{", "[1,", '{"a":', "[1,2,3,4],", "```", "'", "[  ", "\\"])
def test_the_longest_answer_takes_no_time(piece):
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    with contextlib.suppress(Unparsable):
        parse_detections(text)
    assert time.process_time() - start < 1
