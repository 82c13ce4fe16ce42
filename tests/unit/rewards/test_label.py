from __future__ import annotations

import pytest

from trainer.types import ScoreStatus

CONTAINS = {"type": "text/label", "match": "contains"}


@pytest.mark.parametrize(
    ("answer", "equal", "contains"),
    [
        ("Boeing 737", 1, 1),
        ("boeing_737", 1, 1),
        ("737", 0, 1),
        ("a Boeing 737-800", 0, 1),
        ("A380", 0, 0),
        ("b", 0, 1),
    ],
)
def test_names(values, answer, equal, contains):
    reply = f"<think>t</think>\n<answer>{answer}</answer>"
    gold = "<answer>Boeing 737</answer>"
    assert values("text/label", [reply], answer=gold) == [equal]
    assert values(CONTAINS, [reply], answer=gold) == [contains]


def test_guards(grade, values):
    empty = "<answer></answer>"
    assert grade(CONTAINS, [empty], answer="cat")[0].status is ScoreStatus.UNPARSABLE
    assert values(CONTAINS | {"least": 0}, [empty], answer="cat") == [1.0]
    assert values(CONTAINS | {"least": 3}, ["<answer>c</answer>"], answer="cat") == [0.0]
    assert values("text/label", ["Dog"], answer=["cat", "dog"]) == [1.0]
    assert values({"type": "text/label", "keep_space": True}, ["a b"], answer="ab") == [0.0]


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("<think>t</think><answer>SIAMESE</answer>", 2),
        ("<think>t</think><answer>the siamese</answer>", 1),
        ("siamese", 1),
    ],
)
async def test_cls_rl_with_thinking(score, make_replies, reply, value):
    label = {"type": "text/label", "keep_space": True}
    terms = {"accuracy": {"reward": label}, "format": {"reward": "text/format"}}
    group = make_replies([reply], answer="<answer>siamese</answer>")
    (only,) = await score({"type": "weighted", "terms": terms}, group)
    assert only.value == value


def test_no_thinking_is_equality_of_the_whole_reply(values):
    spec = {
        "type": "text/exact",
        "extract": "all",
        "ignore_case": False,
        "ignore_space": False,
        "strip": False,
    }
    replies = ["siamese", "siamese ", "Siamese", "<answer>siamese</answer>"]
    assert values(spec, replies, answer="<answer> siamese </answer>") == [1.0, 0.0, 0.0, 0.0]
