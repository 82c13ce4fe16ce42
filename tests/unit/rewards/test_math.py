from __future__ import annotations

import pytest

from trainer.types import ScoreStatus

UNPARSABLE = ScoreStatus.UNPARSABLE


@pytest.mark.parametrize(
    ("gold", "reply", "value"),
    [
        ("4", r"so \boxed{4}", 1.0),
        (4, r"so \boxed{4}", 1.0),
        ("4", r"\boxed{\frac{8}{2}}", 1.0),
        (r"\frac{1}{2}", r"\boxed{0.5}", 1.0),
        (r"$\frac{\sqrt{3}}{2}$", r"\boxed{\sqrt{3}/2}", 1.0),
        ("1,234", r"\boxed{1234}", 1.0),
        ("x^2+1", r"\boxed{1 + x^2}", 1.0),
        (r"\{1,2\}", r"\boxed{\{2, 1\}}", 1.0),
        (["4", "5"], r"\boxed{5}", 1.0),
        ("blue", r"\boxed{blue}", 1.0),
        ("4", r"\boxed{4} no, \boxed{5}", 0.0),
        ("4", r"\boxed{5} no, \boxed{4}", 1.0),
        ("4", r"\boxed{4} and \boxed{\frac{1}", 1.0),
        ("2x", r"\boxed{x}", 0.0),
    ],
)
def test_boxed(values, gold, reply, value):
    assert values("math/boxed", [reply], answer=gold) == [value]


def test_boxed_says_why(grade):
    none, empty = grade("math/boxed", ["4", r"\boxed{}"], answer="4")
    assert (none.value, none.status) == (0.0, UNPARSABLE)
    assert none.reason == r"no \boxed{...} in the reply"
    assert (empty.value, empty.status) == (0.0, UNPARSABLE)
    (absent,) = grade("math/boxed", [r"\boxed{4}"])
    assert (absent.value, absent.status) == (None, ScoreStatus.NOT_APPLICABLE)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("<answer>\n4\n</answer>", 1.0),
        (r"<answer>\boxed{4}</answer>", 1.0),
        (r"<answer> $4$ </answer> or \boxed{5}, 6", 1.0),
        (r"4, that is \boxed{5}", 0.0),
        ("3 + 1 = 4.", 1.0),
        ("4 then 5", 0.0),
        ("<answer></answer> 4", 1.0),
    ],
)
def test_final_answer_looks_in_order(values, reply, value):
    assert values("math/final_answer", [reply], answer="4") == [value]


def test_final_answer_order_is_configurable(values, grade):
    reply = r"<answer>1</answer> \boxed{2} 3"
    for place, answer in [("tag", 1), ("boxed", 2), ("number", 3)]:
        assert values({"type": "math/final_answer", "order": [place]}, [reply], answer=answer) == [
            1.0
        ]
    (nothing,) = grade({"type": "math/final_answer", "order": ["tag"]}, ["4"], answer=4)
    assert (nothing.value, nothing.status) == (0.0, UNPARSABLE)
