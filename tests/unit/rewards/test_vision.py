from __future__ import annotations

import math

import pytest
from PIL import Image
from pydantic import ValidationError

from trainer.types import ScoreStatus

GOLD = [10, 10, 50, 50]
SHIFTED = "<answer>[30, 20, 70, 60]</answer>"
FAR = "<answer>[80, 10, 100, 50]</answer>"


@pytest.mark.parametrize(
    ("fields", "reply", "value"),
    [
        ({}, SHIFTED, 0.230769),
        ({"kind": "giou", "mapped": False}, SHIFTED, 0.097436),
        ({"kind": "diou", "mapped": False}, SHIFTED, 0.148802),
        ({}, FAR, 0.0),
        ({"kind": "giou", "mapped": False}, FAR, -0.333333),
        ({"kind": "diou", "mapped": False}, FAR, -0.371134),
        ({"kind": "giou"}, FAR, 0.333333),
        ({"kind": "giou"}, "[20, 20, 40, 40]", 0.625),
        ({"kind": "diou", "mapped": False}, "[20, 20, 40, 40]", 0.25),
        ({"threshold": 0.2}, SHIFTED, 1.0),
        ({"threshold": 0.5}, SHIFTED, 0.0),
        ({}, '```json\n[{"bbox_2d": [10, 10, 50, 50], "label": "cat"}]\n```', 1.0),
        ({}, "<|box_start|>(10,10),(50,50)<|box_end|>", 1.0),
        ({}, "<answer>10, 10, 50, 50</answer>", 1.0),
        ({}, "[0,0,1,1] or [10,10,50,50]", 1.0),
        ({"pick": "first"}, "[0,0,1,1] or [10,10,50,50]", 0.0),
        ({"pick": "best"}, "[10,10,50,50] or [0,0,1,1]", 1.0),
        ({"sort_corners": True}, "[50,50,10,10]", 1.0),
    ],
)
def test_iou_by_hand(values, fields, reply, value):
    spec = {"type": "vision/iou"} | fields
    assert values(spec, [reply], answer=GOLD) == [pytest.approx(value, abs=1e-6)]


def test_the_box_of_mixed_r1(values):
    reply = "<answer>[10,20,110,220]</answer>"
    found = values("vision/iou", [reply], answer=[30, 40, 130, 200])
    assert found == [pytest.approx(0.551724, abs=1e-6)]


@pytest.mark.parametrize("reply", ["[50,50,10,10]", "no box", "[1,2,3]", "[1e999,0,1,1]", ""])
def test_iou_unparsable_is_the_floor(grade, reply):
    for fields, floor in [
        ({}, 0.0),
        ({"kind": "giou"}, 0.0),
        ({"kind": "giou", "mapped": False}, -1.0),
    ]:
        (score,) = grade({"type": "vision/iou"} | fields, [reply], answer=GOLD)
        assert (score.value, score.status) == (floor, ScoreStatus.UNPARSABLE)


@pytest.mark.parametrize(
    ("fields", "reply", "meta"),
    [
        ({"space": "unit"}, "[0.1, 0.05, 0.5, 0.25]", {"width": 100, "height": 200}),
        ({"space": "thousand"}, "[100, 50, 500, 250]", {}),
        ({"space": "grid", "grid": 20}, "[2, 1, 10, 5]", {}),
    ],
)
def test_iou_converts_the_gold_box(values, fields, reply, meta):
    """100 x 200 pixels: from the columns, an image, or what is left of one in a worker."""
    spec = {"type": "vision/iou", "gold_space": "pixels"} | fields
    image = Image.new("RGB", (100, 200))
    for part in ({"type": "image", "image": image}, {"type": "image", "size": (100, 200)}):
        messages = ({"role": "user", "content": [part]},)
        found = values(spec, [reply], messages=messages, meta={"box": GOLD} | meta)
        assert found == [pytest.approx(1.0)]


def test_iou_bad_rows(grade, make_reward):
    (absent,) = grade("vision/iou", ["[1,1,2,2]"])
    assert (absent.value, absent.status) == (None, ScoreStatus.NOT_APPLICABLE)
    with pytest.raises(ValueError, match="x2 > x1"):
        grade("vision/iou", ["[1,1,2,2]"], answer=[5, 5, 1, 1])
    with pytest.raises(ValueError, match="expected a box"):
        grade("vision/iou", ["[1,1,2,2]"], answer="left")
    with pytest.raises(ValueError, match="columns width and height"):
        grade({"type": "vision/iou", "space": "unit", "gold_space": "pixels"}, ["x"], answer=GOLD)
    with pytest.raises(ValidationError, match="grid and grid go together"):
        make_reward({"type": "vision/iou", "space": "grid"})


@pytest.mark.parametrize(
    ("gold", "given", "exact", "linear", "exp", "mra"),
    [
        (10, 9, 0, 0.9, 0.904837, 0.8),
        (10, 10, 1, 1, 1, 1),
        (10, 25, 0, 0, math.exp(-1.5), 0),
        (0, 2, 0, 0, 0.135335, 0),
        (0, 0, 1, 1, 1, 1),
    ],
)
def test_count_by_hand(values, gold, given, exact, linear, exp, mra):
    wanted = {"exact": exact, "linear": linear, "exp": exp, "mra": mra}
    for kind, value in wanted.items():
        spec = {"type": "vision/count", "kind": kind}
        found = values(spec, [f"<answer>{given}</answer>"], answer=gold)
        assert found == [pytest.approx(value, abs=1e-6)], kind
    within = {"type": "vision/count", "kind": "within", "tolerance": 1}
    assert values(within, [str(given)], answer=gold) == [float(abs(given - gold) <= 1)]


@pytest.mark.parametrize(
    ("reply", "value", "parsed"),
    [
        ("1. a cat, 2. a dog: 3", 1.0, True),
        ("there are Three", 1.0, True),
        ("3.0", 1.0, True),
        ("3.5", 0.0, False),
        ("-3", 0.0, False),
        ("about a dozen", 0.0, False),
        ("<answer>3</answer> or 4", 1.0, True),
    ],
)
def test_count_parsing(grade, reply, value, parsed):
    (score,) = grade("vision/count", [reply], meta={"count": 3})
    assert (score.value, score.status is ScoreStatus.OK) == (value, parsed)


def test_count_edges(grade):
    tagged = {"type": "vision/count", "require_tag": True, "words": False}
    untagged, word = grade(tagged, ["3", "<answer>three</answer>"], answer="3")
    assert untagged.status is word.status is ScoreStatus.UNPARSABLE
    assert grade("vision/count", ["3"])[0].status is ScoreStatus.NOT_APPLICABLE
    with pytest.raises(ValueError, match="'many' is not a count"):
        grade("vision/count", ["3"], answer="many")
