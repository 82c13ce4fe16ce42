from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ops import boxes

A, B, FAR, INSIDE = (10, 10, 50, 50), (30, 20, 70, 60), (80, 10, 100, 50), (20, 20, 40, 40)
SIDE = st.floats(-1e4, 1e4, allow_nan=False).map(lambda v: round(v, 3))
BOX = st.tuples(SIDE, SIDE, SIDE, SIDE).map(boxes.sorted_corners).filter(boxes.is_valid)
PIECES = st.lists(
    st.sampled_from(["[", "]", "(", ")", ",", " ", "1", "2.5", "-3", ".5", "1e9", "nan", "x", "\n"])
).map("".join)


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou", "diou"),
    [
        (A, B, 0.230769, 0.097436, 0.148802),
        (A, FAR, 0.0, -0.333333, -0.371134),
        (A, INSIDE, 0.25, 0.25, 0.25),
        (A, A, 1.0, 1.0, 1.0),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0, 0.0, -0.2),
    ],
)
def test_overlaps(a, b, iou, giou, diou):
    assert boxes.iou(a, b) == pytest.approx(iou, abs=1e-6)
    assert boxes.giou(a, b) == pytest.approx(giou, abs=1e-6)
    assert boxes.diou(a, b) == pytest.approx(diou, abs=1e-6)


def test_no_extra_pixel():
    assert boxes.area((0, 0, 1, 1)) == 1


@given(BOX, BOX)
def test_overlaps_are_symmetric_and_bounded(a, b):
    for overlap in (boxes.iou, boxes.giou, boxes.diou):
        assert overlap(a, b) == pytest.approx(overlap(b, a))
        assert overlap(a, b) <= boxes.iou(a, b) + 1e-9 <= 1 + 2e-9
        assert overlap(a, b) >= -1
    assert boxes.iou(a, a) == pytest.approx(1)


@given(st.text() | PIECES)
def test_parsing_never_raises_and_gives_finite_numbers(text):
    for box in boxes.parse_boxes(text):
        assert len(box) == 4
        assert all(abs(v) < 1e12 for v in box)


@given(BOX, st.text(alphabet="abc<>/\n :"))
def test_a_written_box_is_read(box, around):
    written = ", ".join(map(str, box))
    for form in (f"[{written}]", f"({written})", f'{{"bbox_2d": [{written}]}}'):
        assert boxes.parse_boxes(f"{around}{form}{around}") == [box]
    assert boxes.parse_boxes(written) == [box]
    assert boxes.as_box(f"[{written}]") == boxes.as_box(list(box)) == box


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[1,2,3,4] then (5, 6, 7, 8)", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("(1,2),(3,4)", [(1, 2, 3, 4)]),
        ("[1, 2], [3, 4]", [(1, 2, 3, 4)]),
        ("1 2 3 4", [(1, 2, 3, 4)]),
        ("[4,3,2,1]", [(4, 3, 2, 1)]),
        ("[1,2,3]", []),
        ("[1,2,3,4,5]", []),
        ("1 2 3 4 cats", []),
        ("[1e999,0,1,1]", []),
    ],
)
def test_parse_boxes(text, found):
    assert boxes.parse_boxes(text) == found


@pytest.mark.parametrize("piece", ["[", "[1,", "1,", "1 ", " ", "[1,2,3,", "(1,2),", "9", "-", "."])
def test_parsing_is_linear_in_hostile_text(piece):
    start = time.process_time()
    boxes.parse_boxes(piece * 20_000)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "value",
    [None, 3, [1, 2, 3], "x", [1, 2, 3, "a"], [0, 0, 0, 1], [5, 5, 1, 1], [0, 0, float("inf"), 1]],
)
def test_as_box_refuses(value):
    with pytest.raises(ValueError, match="box"):
        boxes.as_box(value)


def test_scale_box():
    assert boxes.scale_box((1, 2, 3, 4), (10, 0.5)) == (10, 1, 30, 2)
