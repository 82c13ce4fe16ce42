from __future__ import annotations

import pytest

from trainer.types import ScoreStatus

TIOU = "vision/temporal_iou"
MINUTE = {"duration": 60}


@pytest.mark.parametrize(
    ("kind", "reply", "gold", "value"),
    [
        ("tiou", "12 to 30", [15, 36], 0.625),
        ("iop", "12 to 30", [15, 36], 0.833333),
        ("iog", "12 to 30", [15, 36], 0.714286),
        ("distance", "12 to 30", [15, 36], 0.534375),
        ("tiou", "40 - 50", [15, 36], 0),
        ("giou", "40 - 50", [15, 36], -0.114286),
        ("tiou", "[[2,8],[6,10],[20,24]]", [[4, 9], [22, 30]], 0.388889),
        ("iop", "[[2,8],[6,10],[20,24]]", [[4, 9], [22, 30]], 0.583333),
        ("iog", "[[2,8],[6,10],[20,24]]", [[4, 9], [22, 30]], 0.538462),
        ("tiou", "from 0:12 to 0:30", [15, 36], 0.625),
        ("tiou", "00:00:12 - 00:00:30", "15 to 36", 0.625),
    ],
)
def test_the_cards_numbers(values, kind, reply, gold, value):
    spec = {"type": TIOU, "kind": kind}
    assert values(spec, [reply], answer=gold, meta=MINUTE) == [pytest.approx(value, abs=1e-6)]


@pytest.mark.parametrize(
    ("start", "end", "value"), [("12.0", "30.0", 0.625), ("40", "50", 0), ("30", "12", 0)]
)
@pytest.mark.parametrize("quote", ['"', ""])
def test_temporal_r1(values, start, end, value, quote):
    """Fractions in the row, seconds in the reply; numbers quoted or not."""
    spec = {"type": TIOU, "gold_unit": "fraction"}
    times = f'{{"start_time": {quote}{start}{quote}, "end_time": {quote}{end}{quote}}}'
    found = values(spec, [f"<answer>{times}</answer>"], answer=[0.25, 0.6], meta=MINUTE)
    assert found == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('<think>t</think> <answer> {"start_time": "12.0", "end_time": "30.0"} </answer>', 0.8125),
        ('<think>t</think><answer>{"start_time": "40", "end_time": "50"}</answer>', 0.5),
        ('<think>t</think><answer>{"start_time": 12, "end_time": 30}</answer>', 0.3125),
        ('<think>t</think><answer>{"start_time": "30", "end_time": "12"}</answer>', 0.5),
    ],
)
async def test_temporal_r1_with_its_format(score, make_replies, reply, value):
    number = r'"[\d.]+"'
    layout = {
        "type": "text/format",
        "layout": "custom",
        "pattern": r"<think>.*</think>\s*<answer>\s*\{\"start_time\":\s*" + number
        + r",\s*\"end_time\":\s*" + number + r"\}\s*</answer>",
    }  # fmt: skip
    spec = {
        "type": "weighted",
        "terms": {
            "iou": {"weight": 0.5, "reward": {"type": TIOU, "gold_unit": "fraction"}},
            "format": {"weight": 0.5, "reward": layout},
        },
    }
    (only,) = await score(spec, make_replies([reply], answer=[0.25, 0.6], meta=MINUTE))
    assert only.value == pytest.approx(value)


def test_unparsable(grade):
    for reply in ("later", "30 to 12", "5 to 5", ""):
        (score,) = grade(TIOU, [reply], answer=[15, 36], meta=MINUTE)
        assert (score.value, score.status) == (0.0, ScoreStatus.UNPARSABLE)
        (signed,) = grade({"type": TIOU, "kind": "giou"}, [reply], answer=[15, 36], meta=MINUTE)
        assert signed.value == -1


def test_threshold_and_beyond(values, grade):
    spec = {"type": TIOU, "threshold": 0.5}
    assert values(spec, ["12 to 30", "12 to 16"], answer=[15, 36]) == [1.0, 0.0]
    clip = {"type": TIOU, "beyond": "clip"}
    assert values(clip, ["30 to 90"], answer=[30, 60], meta=MINUTE) == [1.0]
    (refused,) = grade(
        {"type": TIOU, "beyond": "refuse"}, ["30 to 90"], answer=[30, 60], meta=MINUTE
    )
    assert refused.status is ScoreStatus.UNPARSABLE


def test_bad_rows(grade):
    with pytest.raises(ValueError, match="end > start"):
        grade(TIOU, ["1 to 2"], answer=[5, 5])
    with pytest.raises(ValueError, match="must be a fraction"):
        grade({"type": TIOU, "gold_unit": "fraction"}, ["1 to 2"], answer=[5, 9], meta=MINUTE)
    with pytest.raises(ValueError, match="column duration"):
        grade({"type": TIOU, "kind": "distance"}, ["1 to 2"], answer=[5, 9])
