from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from trainer.types import ScoreStatus

GOLD = [["a", [0, 0, 100, 100]], ["b", [200, 0, 300, 100]], ["a", [0, 200, 100, 300]]]
GIVEN = [
    ("a", [5, 0, 100, 100]),
    ("b", [200, 0, 280, 100]),
    ("a", [30, 200, 130, 300]),
    ("b", [500, 500, 600, 600]),
]
EARLY = {"precision_band": [0.5, 0.75], "recall_threshold": 0.5, "recall_band": [0.5, 0.75]}
LATE = {"precision_band": [0.75, 0.9], "recall_threshold": 0.75, "recall_band": [0.5, 0.75]}


def listed(items):
    return json.dumps([{"bbox_2d": box, "label": label} for label, box in items])


@pytest.mark.parametrize(
    ("fields", "precision", "recall"),
    [(EARLY, 0.846154, 1), (LATE, 0.6, 0.666667), ({}, 0.762821, 1)],
)
def test_the_cards_numbers(grade, fields, precision, recall):
    spec = {"type": "vision/criterion"} | fields
    (score,) = grade(spec, [f"```json\n{listed(GIVEN)}\n```"], answer=GOLD)
    assert score.parts["precision"] == pytest.approx(precision, abs=1e-6)
    assert score.parts["recall"] == pytest.approx(recall, abs=1e-6)
    assert score.value == pytest.approx(precision + recall, abs=1e-6)


def test_options_and_edges(grade, values, make_reward):
    charged = {"type": "vision/criterion", "precision_over": "predicted"} | LATE
    (score,) = grade(charged, [listed(GIVEN)], answer=GOLD)
    assert score.parts["precision"] == pytest.approx(1.8 / 4)
    low = [("a", [5, 0, 100, 100])]
    (few,) = grade({"type": "vision/criterion"} | EARLY, [listed(low)], answer=GOLD)
    assert few.parts == {"precision": 1.0, "recall": 0.0}  # a third is under .5
    assert values("vision/criterion", ["[]", "nothing here"], answer=[]) == [2.0, 2.0]
    assert values("vision/criterion", ["[]"], answer=GOLD) == [0.0]
    (lost,) = grade("vision/criterion", ["nothing here"], answer=GOLD)
    assert lost.status is ScoreStatus.UNPARSABLE
    for l1 in ("relative", "none"):
        fields = {"type": "vision/criterion", "l1": l1}
        assert values(fields, [listed(GIVEN)], answer=GOLD) == [pytest.approx(1.762821)]
    with pytest.raises(ValidationError, match=r"lower end 0\.9 is above"):
        make_reward({"type": "vision/criterion", "precision_band": [0.9, 0.1]})


async def test_progressive_rules_by_the_step(make_reward):
    phases = {
        "easy": {"reward": {"type": "vision/criterion"} | EARLY},
        "hard": {"start": 1500, "reward": {"type": "vision/criterion"} | LATE},
    }
    staged = make_reward({"type": "staged", "phases": phases})
    assert [staged.phase(step, 3000) for step in (0, 1499, 1500)] == ["easy", "easy", "hard"]
