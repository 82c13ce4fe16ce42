from __future__ import annotations

import pytest

from trainer.ops.average_precision import interpolated, mean_ap
from trainer.ops.detections import Detection

GOLD = [(0, 0, 10, 10), (8, 0, 18, 10), (40, 40, 60, 60)]
GIVEN = [(41, 41, 61, 61), (7, 0, 17, 10), (80, 80, 90, 90), (0, 0, 10, 10)]


def boxes(items, label="", score=None):
    return [Detection(tuple(map(float, box)), label, score) for box in items]


def test_one_image_by_hand():
    image = (boxes(GIVEN), boxes(GOLD))
    assert mean_ap([image], [0.5]) == pytest.approx(0.915842, abs=1e-6)
    assert mean_ap([image]) == pytest.approx(0.666337, abs=1e-6)


def test_ranked_by_score_over_all_images():
    """The sure miss of the second image stands before the unsure hit of the first."""
    hit, miss = boxes([GOLD[0]], score=0.3), boxes([(80, 80, 90, 90)], score=0.9)
    gold = boxes([GOLD[0]])
    assert mean_ap([(hit, gold), (miss, [])], [0.5]) == pytest.approx(0.5)
    assert mean_ap([(hit, gold), ([], [])], [0.5]) == 1
    assert mean_ap([(hit, gold), ([], gold)], [0.5]) == pytest.approx(51 / 101)


def test_classes_are_those_of_the_gold():
    gold = boxes([GOLD[0]], "cat")
    assert mean_ap([(boxes([GOLD[0]], "cat") + boxes([GOLD[1]], "dog"), gold)]) == 1
    assert mean_ap([(boxes([GOLD[0]], "dog"), gold)]) == 0
    assert mean_ap([(boxes([GOLD[0]]), [])]) is None
    assert mean_ap([([], gold)]) == 0
    assert mean_ap([([Detection(None, "cat"), *gold], gold)], [0.5]) == pytest.approx(0.5)


def test_duplicates_and_the_cap():
    gold = boxes([GOLD[0]])
    twice = boxes([GOLD[0], GOLD[0]])
    assert mean_ap([(twice, gold)]) == 1  # the envelope hides what follows: known, see the guard
    assert mean_ap([(boxes([GOLD[2]]) + gold, gold)], most=1) == 0


def test_interpolation():
    assert interpolated([True, False, True], 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert interpolated([], 3) == 0
