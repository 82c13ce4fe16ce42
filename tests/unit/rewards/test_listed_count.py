from __future__ import annotations

import pytest

from trainer.types import ScoreStatus


@pytest.mark.parametrize(
    ("listed", "count", "value"),
    [
        ("[[0, 0, 9, 9], [20, 0, 30, 9]]", "2", 1),
        ("[[0, 0, 9, 9], [20, 0, 30, 9]]", "three", 0),
        ('[{"bbox_2d": [0, 0, 9, 9], "label": "cat"}]', "one", 1),
        ("(5, 5), (6, 6), (25, 5)", "3", 1),
        ("(5, 5), (6, 6), (25, 5)", "2", 0),
        ("", "0", 1),
        ("none", "zero", 1),
    ],
)
def test_the_list_and_the_number(values, listed, count, value):
    reply = f"<list>{listed}</list><answer>{count}</answer>"
    assert values("vision/listed_count", [reply]) == [value]


@pytest.mark.parametrize(
    "reply", ["3", "<answer>3</answer>", "<list>(1,2)</list><answer>x</answer>"]
)
def test_what_cannot_be_read(grade, reply):
    (score,) = grade("vision/listed_count", [reply])
    assert (score.value, score.status) == (0.0, ScoreStatus.UNPARSABLE)


async def test_grounded_counting(score, make_replies):
    spec = {
        "type": "weighted",
        "terms": {
            "found": {"reward": {"type": "vision/point_in_box", "kind": "f1", "tag": "list"}},
            "agrees": {"reward": "vision/listed_count"},
        },
    }
    meta = {"boxes": [[0, 0, 10, 10], [20, 0, 30, 10]], "width": 100, "height": 100}
    replies = [
        "<list>(5,5),(6,6),(25,5)</list><answer>3</answer>",
        "<list>(5,5),(25,5)</list><answer>3</answer>",
    ]
    first, second = await score(spec, make_replies(replies, meta=meta))
    assert first.value == pytest.approx(0.8 + 1)
    assert second.value == 1
