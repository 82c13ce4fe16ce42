from __future__ import annotations

import pytest

from trainer.types import ScoreStatus

TARGET = [100, 100, 200, 140]


@pytest.mark.parametrize(
    ("reply", "point", "coverage"),
    [
        ("[110,104,214,140]", 0.967, 0.989),
        ("[90,95,190,175]", 0.74, 0.865),
        ("click at [90.0, 95, 190, 175]", 0.74, 0.865),
        ("[100,100,200,140]", 1, 1),
        ("[214,140,110,104]", 0.967, 0.989),  # swapped corners: squares hide the sign
        ("(150, 120)", 1, 0),
        ("[150,120,150,120]", 1, 0),
        ("[900,900,950,920]", 0, 0),
    ],
)
def test_the_cards_numbers(grade, reply, point, coverage):
    (score,) = grade("vision/gaussian", [reply], answer=TARGET)
    assert score.parts == {"point": pytest.approx(point), "coverage": pytest.approx(coverage)}
    assert score.value == pytest.approx(point + coverage)


async def test_the_sum_with_the_strict_format(score, make_replies):
    layout = {
        "type": "text/format",
        "layout": "custom",
        "pattern": r"\[\d+,\s*\d+,\s*\d+,\s*\d+\]",
    }
    terms = {"gaussian": {"reward": "vision/gaussian"}, "format": {"reward": layout}}
    replies = ["[110,104,214,140]", "click at [90.5, 95, 190, 175]"]
    spec = {"type": "weighted", "terms": terms}
    first, second = await score(spec, make_replies(replies, answer=TARGET))
    assert first.value == pytest.approx(2.956)
    assert second.parts["format"] == 0
    assert second.parts["gaussian"] > 1.5


def test_edges(grade, values):
    (lost,) = grade("vision/gaussian", ["there"], answer=TARGET)
    assert (lost.value, lost.status) == (0.0, ScoreStatus.UNPARSABLE)
    with pytest.raises(ValueError, match="x2 > x1"):
        grade("vision/gaussian", ["[1,1,2,2]"], answer=[5, 5, 5, 9])
    exact = {"type": "vision/gaussian", "digits": None, "coverage_weight": 0}
    assert values(exact, ["[110,104,214,140]"], answer=TARGET) == [
        pytest.approx(0.966759, abs=1e-4)
    ]
    frame = {"type": "vision/gaussian", "space": "thousand", "gold_space": "pixels"}
    meta = {"width": 500, "height": 1000, "box": TARGET}
    assert values(frame, ["[200,100,400,140]"], meta=meta) == [2.0]
