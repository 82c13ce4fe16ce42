from __future__ import annotations

import json

import pytest

from trainer.types import ScoreStatus

GOLD = [[100, 100, 300, 300], [400, 400, 600, 500], [700, 100, 900, 300]]
GIVEN = [
    ([110, 90, 310, 290], 0.9),
    ([400, 410, 600, 520], 0.6),
    ([110, 90, 310, 290], 0.5),
    ([650, 150, 800, 300], 0.8),
]
SPEC = {"type": "vision/confident_detection"}


def reply(items):
    listed = [{"Position": box, "Confidence": c} for box, c in items]
    return f"<think>t</think><answer>{json.dumps(listed)}</answer>".replace('"', "'")


def test_the_cards_numbers(grade):
    (score,) = grade(SPEC, [reply(GIVEN)], answer=GOLD)
    assert score.parts["iou"] == pytest.approx(0.524108, abs=1e-6)
    assert score.parts["confidence"] == pytest.approx(0.566667, abs=1e-6)
    assert score.value == pytest.approx(1.090774, abs=1e-6)


@pytest.mark.parametrize(("given", "gold", "iou"), [(0, 0, 0.822323), (3, 2, 0.0), (1, 1, 0.75)])
def test_the_cards_pairs(grade, given, gold, iou):
    """The second overlaps by 0.32, which is not above 0.5."""
    (score,) = grade(SPEC, [reply([GIVEN[given]])], answer=[GOLD[gold]])
    assert score.parts["iou"] == pytest.approx(iou, abs=1e-6)


async def test_with_the_format_term(score, make_replies):
    terms = {"detection": {"reward": SPEC}, "format": {"reward": "text/format"}}
    gold = f"<answer>{reply([(box, 1) for box in GOLD])[23:-9]}</answer>"
    group = make_replies([reply(GIVEN)], answer=gold)
    (only,) = await score({"type": "weighted", "terms": terms}, group)
    assert only.value == pytest.approx(2.090774, abs=1e-6)
    assert set(only.parts) == {"detection", "detection/iou", "detection/confidence", "format"}


def test_a_miss_is_paid_for_modesty(grade):
    (score,) = grade(SPEC, [reply([([0, 0, 50, 50], 0.3)])], answer=GOLD)
    assert score.parts == {"iou": 0.0, "confidence": pytest.approx(0.7)}


def test_an_iou_of_exactly_the_threshold_is_a_miss(grade):
    half = reply([([0, 0, 100, 50], 1.0)])
    (score,) = grade(SPEC, [half], answer=[[0, 0, 100, 100]])
    assert score.parts == {"iou": 0.0, "confidence": 0.0}


def test_per_predicted_pays_one_sure_box(values):
    one = reply([(GOLD[0], 1.0)])
    assert values(SPEC, [one], answer=GOLD) == [pytest.approx(1 / 3 + 1)]
    assert values(SPEC | {"per": "predicted"}, [one], answer=GOLD) == [2.0]
    plain = SPEC | {"confidence_weight": 0}
    assert values(plain, [one], answer=GOLD) == [pytest.approx(1 / 3)]


@pytest.mark.parametrize(
    "text",
    [
        "No Objects",
        "[]",
        "[[1,2,3,4]]",
        '[{"Position": [1,2,3,4]}]',
        '[{"Confidence": 1}]',
        '[{"Position": [9,9,1,1], "Confidence": 1}]',
        "a cat",
    ],
)
def test_unparsable(grade, text):
    (score,) = grade(SPEC, [f"<answer>{text}</answer>"], answer=GOLD)
    assert (score.value, score.status) == (0.0, ScoreStatus.UNPARSABLE)


def test_absence(grade, values):
    assert grade(SPEC, ["<answer>[]</answer>"], answer=[])[0].status is ScoreStatus.UNPARSABLE
    assert values(SPEC | {"credit_absence": True}, ["<answer>[]</answer>"], answer=[]) == [2.0]


@pytest.mark.parametrize(
    ("gold", "given", "value"),
    [
        ([0.2, 0.2, 0.6, 0.6], "(300,300),(700,500)", 1.233333),
        ([0.1, 0.1, 0.2, 0.2], "(800,800),(900,900)", 0.031250),
        ([0.2, 0.2, 0.6, 0.6], "(200,200),(600,600)", 2),
        ([0.2, 0.2, 0.6, 0.6], "nowhere", 0),
    ],
)
async def test_reasoning_grounding_is_giou_plus_one(score, make_replies, gold, given, value):
    spec = {
        "type": "shaped",
        "shift": 1,
        "reward": {
            "type": "vision/iou",
            "kind": "giou",
            "mapped": False,
            "space": "thousand",
            "gold_space": "unit",
            "pick": "first",
        },
    }
    (only,) = await score(spec, make_replies([f"<answer>{given}</answer>"], answer=gold))
    assert only.value == pytest.approx(value, abs=1e-6)
