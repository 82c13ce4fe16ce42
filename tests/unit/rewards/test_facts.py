"""text/facts: the worked numbers of Perception-R1."""

from __future__ import annotations

import pytest

from trainer.ops.facts import in_order, listed_facts
from trainer.types import ScoreStatus

FACTS = ["red circle", "blue square", "AB = 5", "30 degrees"]


def test_lists_and_numbered_texts():
    assert listed_facts({"facts": FACTS}) == FACTS
    text = "<info1> a\nb </info1>\n<info2>c</info2><info4>d</info4>"
    assert listed_facts({"facts": None, "visual_key_info": text}) == ["a\nb", "c"]
    assert in_order("<info2>c</info2>") == []
    assert listed_facts({}) == []


def test_a_rule_for_short_phrases(grade, values):
    reply = "<think>A RED  circle, ab = 5.</think><answer>30 degrees</answer>"
    assert values("text/facts", [reply], meta={"facts": FACTS}) == [pytest.approx(3 / 4.000001)]
    inside = {"type": "text/facts", "inside": "think"}
    found = grade(inside, [reply, "no tag"], meta={"facts": FACTS})
    assert found[0].value == pytest.approx(2 / 4.000001)
    assert (found[1].value, found[1].status) == (0.0, ScoreStatus.UNPARSABLE)
    assert values("text/facts", ["a redcircle"], meta={"facts": FACTS}) == [0]
    assert grade("text/facts", ["x"], meta={"facts": []})[0].status is ScoreStatus.NOT_APPLICABLE


LAYOUT = r"<think>\n.*\n</think>\n<answer>\n.*\\boxed\{.*\}.*\n</answer>"


@pytest.mark.parametrize(
    ("reply", "facts", "value"),
    [
        (
            "<think>\nred circle, ab = 5, 30 degrees\n</think>\n<answer>\n\\boxed{7}\n</answer>",
            FACTS,
            1.524999869,
        ),
        (
            "<think>\n" + "a b c d e " * 6 + "\n</think>\n<answer>\n\\boxed{8}\n</answer>",
            ["a b", "b c", "d e"],  # 35 words with the tags: 16 windows, 10 of them distinct
            0.1 + 0.7 * 3 / 3.000001 - 0.75,
        ),
        ("\\boxed{7}", None, 0.9),
    ],
)
async def test_perception_r1s_sum(score, make_replies, reply, facts, value):
    """0.9 accuracy + 0.1 format + 0.7 facts, less the penalty of repetition."""
    spec = {
        "type": "weighted",
        "terms": {
            "accuracy": {"weight": 0.9, "reward": "math/boxed"},
            "format": {
                "weight": 0.1,
                "reward": {"type": "text/format", "layout": "custom", "pattern": LAYOUT},
            },
            "facts": {"weight": 0.7, "reward": "text/facts"},
            "repetition": {"reward": {"type": "text/repetition", "n": 20, "penalty": 2.0}},
        },
    }
    (only,) = await score(spec, make_replies([reply], answer="7", meta={"facts": facts}))
    assert only.value == pytest.approx(value, abs=1e-9)
