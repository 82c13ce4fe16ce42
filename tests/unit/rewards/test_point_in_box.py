from __future__ import annotations

import pytest

from trainer.types import ScoreStatus

TARGET = [100, 50, 180, 90]
SCREEN = {"width": 1000, "height": 600}
HIT, NEAR = {"type": "vision/point_in_box"}, {"type": "vision/point_in_box", "kind": "distance"}


@pytest.mark.parametrize(
    ("reply", "hit", "near"),
    [
        ("<answer>(180,90)</answer>", 1, 0.961652),
        ("<answer>(200, 70)</answer>", 0, 0.94855),
        ('{"point_2d": [140, 70]}', 1, 1),
        ("click(start_box='(140,70)')", 1, 1),
        ("[100, 50, 180, 90]", 1, 1),
        ("x=140, y=70", 1, 1),
        ("140 70", 1, 1),
        ("<|box_start|>(100,50),(180,90)<|box_end|>", 1, 1),
    ],
)
def test_hit_and_distance(values, reply, hit, near):
    assert values(HIT, [reply], answer=TARGET, meta=SCREEN) == [hit]
    assert values(NEAR, [reply], answer=TARGET, meta=SCREEN) == [pytest.approx(near, abs=1e-6)]


def test_frames(values):
    """1000 x 600: (140, 117) of a thousand is the pixel (140, 70.2)."""
    spec = HIT | {"space": "thousand", "gold_space": "pixels"}
    assert values(spec, ["(140,117)"], answer=TARGET, meta=SCREEN) == [1.0]
    assert values(HIT, ["(140,117)"], answer=TARGET, meta=SCREEN) == [0.0]


def test_several_targets(values):
    targets = [[0, 0, 10, 10], [20, 0, 30, 10]]
    spec = HIT | {"kind": "f1"}
    found = values(spec, ["(5,5),(6,6),(25,5)"], answer=targets, meta=SCREEN)
    assert found == [pytest.approx(0.8)]


@pytest.mark.parametrize("reply", ["(NaN,3)", "over there", "(2000, 3)", "(-1, 3)", "", "(5)"])
def test_what_is_no_point_in_the_image(grade, reply):
    for kind in ("hit", "distance", "f1"):
        (score,) = grade(HIT | {"kind": kind}, [reply], answer=TARGET, meta=SCREEN)
        assert (score.value, score.status) == (0.0, ScoreStatus.UNPARSABLE)


def test_bad_rows(grade):
    with pytest.raises(ValueError, match="2 target boxes"):
        grade(HIT, ["(1,1)"], answer=[TARGET, TARGET], meta=SCREEN)
    with pytest.raises(ValueError, match="size of the image is unknown"):
        grade(HIT, ["(1,1)"], answer=TARGET)


def test_masks(values, grade):
    mask = [[0] * 4, [0, 1, 1, 0], [0, 0, 1, 0]]
    row = {"width": 4, "height": 3, "mask": mask}
    replies = ["(1, 1)", "(2.9, 2.9)", "(1, 2)", "(0.5, 1)", "(4, 1)", "(1, 3)"]
    assert values(HIT, replies, meta=row) == [1, 1, 0, 0, 0, 0]
    scaled = HIT | {"space": "thousand"}
    assert values(scaled, ["(500, 500)", "(500, 100)"], meta=row) == [1, 0]
    with pytest.raises(ValueError, match="3 rows of 4"):
        grade(HIT, ["(1, 1)"], meta=row | {"mask": mask[:2]})
