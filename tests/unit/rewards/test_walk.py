"""`text/walk`: legal moves, and the goal at the end."""

from __future__ import annotations

import pytest

from trainer.prompts.base import Prompts
from trainer.rewards.base import Reward
from trainer.rewards.text.walk import Walk
from trainer.types import Prompt, Rollout, Span

META = {"start": "c", "goal": "e", "places": 6, "moves": 4}


def graded(reply: str) -> object:
    span = Span(None, "assistant", "policy", reply, [1], [True], [0.0], [0])
    return Walk().grade(Rollout([span]), Prompt("0", (), meta=META))


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("+d+e", True),
        (" +d+e\n", True),
        ("+d+e...", True),
        ("+d..+e", False),
        ("+d...", False),
        ("...", False),
        ("-b+c+d+e", True),
        ("+d+e+f-e", True),
        ("+d+e+f", False),  # met the goal, went on
        ("", False),
        ("+d+d", False),  # a place that the move does not lead to
        ("+e", False),
        ("+d+", False),
        ("*d+e", False),
        ("+d+e+f+g-f-e", False),  # g is off the line
        ("-b-a+b+c+d+e", False),  # six moves, four allowed
        ("-b-a-`", False),
        ("walk +d+e", False),
    ],
)
def test_walks(reply: str, right: bool) -> None:
    assert graded(reply) == right


def test_the_teachers_walks_are_graded_by_where_they_end() -> None:
    source = Prompts.model_validate({"type": "synthetic/walk", "places": 6, "moves": 9})
    stream, seen = source.stream(0), set()
    for _ in range(100):
        prompt = next(stream)
        walk = prompt.meta["demonstration"]
        span = Span(None, "assistant", "policy", walk, [1], [True], [0.0], [0])
        arrived = Walk().grade(Rollout([span]), prompt)
        assert arrived == (walk[-1] == prompt.meta["goal"])
        seen.add(arrived)
    assert seen == {True, False}
    assert source.columns() >= Walk.needs


def test_it_is_found_by_name() -> None:
    assert Reward.model_validate("text/walk") == Walk()
