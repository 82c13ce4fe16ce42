"""Boxes and points of answers, as ten-thousandths of the picture."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.page.places import Reading

SIZE = (200, 100)


@pytest.mark.parametrize(
    ("space", "grid", "text", "place"),
    [
        ("pixels", None, "[20, 10, 100, 50]", [1000, 1000, 5000, 5000]),
        ("unit", None, "[0.1, 0.1, 0.5, 0.5]", [1000, 1000, 5000, 5000]),
        ("thousand", None, "[100, 100, 500, 500]", [1000, 1000, 5000, 5000]),
        ("grid", 14.0, "[0, 7, 14, 14]", [0, 5000, 10000, 10000]),
        ("resized", None, "[40, 20, 200, 100]", [1000, 1000, 5000, 5000]),
    ],
)
def test_spaces(space, grid, text, place):
    reading = Reading(space, space, grid)
    assert reading.reply(f"<answer>{text}</answer>", SIZE, (400, 200)) == [place]
    assert reading.gold(text, SIZE, (400, 200)) == [place]


def test_points_where_the_reward_reads_points():
    reading = Reading.of(
        {"type": "vision/point_in_box", "space": "pixels", "gold_space": None}, None
    )
    assert reading.reply("<answer>(100, 25)</answer>", SIZE, None) == [[5000, 2500]]
    assert reading.gold([100, 25], SIZE, None) == [[5000, 2500]]
    boxes = Reading("pixels", "pixels")
    assert boxes.reply("<answer>[100, 25],14,11</answer>", SIZE, None) == []
    assert boxes.gold([100, 25], SIZE, None) == []


def test_gold_may_be_numbers_text_or_nested():
    reading = Reading("pixels", "unit")
    whole = [0, 0, 5000, 10000]
    for answer in ([0, 0, 0.5, 1], "[0, 0, 0.5, 1]", [{"box": [0, 0, 0.5, 1], "label": "cat"}]):
        assert reading.gold(answer, SIZE, None) == [whole]
    assert reading.gold([[0, 0, 0.5, 1], [0, 0, 1, 1]], SIZE, None) == [whole, [0, 0, 10000, 10000]]
    for nothing in (None, "red", 3, [True, False], {"n": [1, 2, 3]}):
        assert reading.gold(nothing, SIZE, None) == []


def test_a_row_may_name_its_own_space():
    reading = Reading("pixels", "pixels", space_column="where")
    assert reading.gold([0, 0, 0.5, 1], SIZE, None, {"where": "unit"}) == [[0, 0, 5000, 10000]]
    assert reading.gold([0, 0, 100, 100], SIZE, None, {}) == [[0, 0, 5000, 10000]]


def test_pick_and_tag_are_those_of_the_reward():
    two = "<box>[0,0,20,10]</box><box>[0,0,20,10] [20,10,40,20]</box> [9,9,10,10]"
    first, last = [0, 0, 1000, 1000], [1000, 1000, 2000, 2000]
    for pick, found in (("first", [first]), ("last", [last]), ("best", [first, last])):
        assert Reading("pixels", "pixels", tag="box", pick=pick).reply(two, SIZE, None) == found


def test_the_reading_is_found_in_the_rewards_tree():
    iou = {"type": "vision/iou", "space": "grid", "gold_space": None, "grid": 14.0, "pick": "last"}
    weighted = {
        "type": "weighted",
        "terms": {"f": {"reward": {"type": "text/format"}, "weight": 1}},
    }
    both = {"type": "weighted", "terms": weighted["terms"] | {"iou": {"reward": iou, "weight": 1}}}
    route = {"type": "route", "tasks": {"where": both, "count": weighted}, "default": None}
    assert Reading.of(both, None) == Reading("grid", "grid", 14.0, "answer", "last")
    assert Reading.of(weighted, None) is None
    assert Reading.of(route, "where").grid == 14.0
    assert Reading.of(route, "count") is None
    assert Reading.of(route, None) is None


@given(st.text(alphabet="[](),.0123456789-e <>/answer", max_size=80))
def test_no_reply_is_too_strange(text):
    for place in Reading("pixels", "pixels").reply(text, SIZE, None):
        assert len(place) in (2, 4)
        assert all(isinstance(v, int) for v in place)
    assert len(Reading("unit", "unit").reply("[0,0,1,1]" * 500, SIZE, None)) == 64
