from __future__ import annotations

import json

import pytest

from trainer.types import ScoreStatus

GOLD = [[0, 0, 10, 10], [8, 0, 18, 10], [40, 40, 60, 60]]
GIVEN = [[4, 0, 14, 10], [7, 0, 17, 10], [41, 41, 61, 61], [80, 80, 90, 90]]
ORDERED = [[41, 41, 61, 61], [7, 0, 17, 10], [80, 80, 90, 90], [0, 0, 10, 10]]
CATS = [["cat", [0, 0, 100, 100]], ["dog", [200, 200, 300, 300]], ["cat", [400, 0, 500, 80]]]
SEEN = [
    ("cat", [10, 0, 100, 100]),
    ("cat", [200, 200, 290, 310]),
    ("cat", [600, 600, 700, 700]),
    ("cat", [404, 0, 500, 80]),
]


def listed(boxes):
    return f"<answer>```json\n{json.dumps([{'bbox_2d': b} for b in boxes])}\n```</answer>"


def labelled(items):
    return json.dumps([{"bbox_2d": box, "label": label} for label, box in items])


@pytest.mark.parametrize(
    ("fields", "boxes", "value"),
    [
        ({"threshold": 0.4}, GIVEN, 0.857143),
        ({"threshold": 0.4, "matcher": "greedy"}, GIVEN, 0.571429),
        ({"measure": "miou"}, GIVEN, 0.517269),
        ({"measure": "map", "thresholds": [0.5]}, ORDERED, 0.915842),
        ({"measure": "map"}, ORDERED, 0.666337),
        ({"measure": "map", "guard": True}, ORDERED, 0.499752),
        ({"threshold": 0.4, "beta": 2}, GIVEN, 5 * 3 / (4 * 3 + 4)),
    ],
)
def test_the_cards_numbers(values, fields, boxes, value):
    spec = {"type": "vision/detection_set"} | fields
    assert values(spec, [listed(boxes)], answer=GOLD) == [pytest.approx(value, abs=1e-6)]


def test_empty_lists(grade, values):
    replies = ["<answer>None</answer>", "<answer>[]</answer>", listed(GIVEN)]
    for measure in ("f1", "miou", "map"):
        spec = {"type": "vision/detection_set", "measure": measure}
        assert values(spec, replies, answer=[]) == [1.0, 1.0, 0.0]
        assert values(spec, replies[:2], answer=GOLD) == [0.0, 0.0]
    (lost,) = grade("vision/detection_set", ["a cat"], answer=GOLD)
    assert (lost.value, lost.status) == (0.0, ScoreStatus.UNPARSABLE)


def test_vlm_r1_average_precision_and_its_guard(values):
    spec = {"type": "vision/detection_set", "measure": "map", "labels": True}
    reply = f"<answer>```json\n{labelled(SEEN)}\n```</answer>"
    assert values(spec, [reply], answer=CATS) == [pytest.approx(0.344926, abs=1e-6)]
    odlength = spec | {"guard": True}
    assert values(odlength, [reply], answer=CATS) == [pytest.approx(0.258694, abs=1e-6)]
    assert values(odlength, ["<answer>None</answer>"], answer="None") == [1.0]


def test_vlm_r1_by_class_and_threshold(values):
    """Cats alone: 0.7525 up to 0.90 and 0.1262 at 0.95; no dog is found."""
    spec = {"type": "vision/detection_set", "measure": "map", "labels": True}
    for label, thresholds, value in [
        ("cat", [0.5 + 0.05 * i for i in range(9)], 0.7525),
        ("cat", [0.95], 0.1262),
        ("dog", [0.5], 0.0),
    ]:
        gold = [item for item in CATS if item[0] == label]
        reply = f"<answer>{labelled([item for item in SEEN if item[0] == label])}</answer>"
        found = values(spec | {"thresholds": thresholds}, [reply], answer=gold)
        assert found == [pytest.approx(value, abs=1e-4)]


def test_labels_and_invalid_items(values):
    spec = {"type": "vision/detection_set", "labels": True}
    right = [["Cat", GOLD[0]], ["dog", GOLD[2]]]
    replies = [
        labelled([("cat", GOLD[0]), ("dog", GOLD[2])]),
        labelled([("dog", GOLD[0]), ("dog", GOLD[2])]),
        labelled([("cat", GOLD[0]), ("dog", GOLD[2]), ("dog", [9, 9, 1, 1])]),
    ]
    assert values(spec, replies, answer=right) == [1.0, 0.5, pytest.approx(0.8)]


def test_spaces_and_boxes_outside(grade, values):
    spec = {"type": "vision/detection_set", "space": "thousand", "gold_space": "pixels"}
    meta = {"width": 100, "height": 200, "boxes": [[10, 20, 50, 100]]}
    reply = "[[100, 100, 500, 500]]"
    assert values(spec, [reply], meta=meta) == [pytest.approx(1.0)]
    refusing = spec | {"outside": "refuse"}
    (outside,) = grade(refusing, ["[[100, 100, 500, 1500]]"], meta=meta)
    assert outside.status is ScoreStatus.UNPARSABLE
    assert "outside of the image, 1000 x 1000" in outside.reason
    by_row = {"type": "vision/detection_set", "space": "thousand", "space_column": "bbox_space"}
    assert values(by_row, [reply], meta=meta | {"bbox_space": "pixels"}) == [pytest.approx(1.0)]


def test_bad_rows_raise(grade):
    with pytest.raises(ValueError, match="expected a list of boxes"):
        grade("vision/detection_set", ["[]"], answer="left")
    with pytest.raises(ValueError, match="unknown space 'metres'"):
        grade(
            {"type": "vision/detection_set", "space_column": "s"},
            ["[[1,1,2,2]]"],
            answer=GOLD,
            meta={"s": "metres"},
        )
