from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from trainer.ops.drawing import COLORS
from trainer.rewards.base import Reward
from trainer.types import Rollout, Span

KINDS = ["TorF1", "Counting2", "Counting1", "planning"]


def draw(build, n, **fields):
    stream = build({"type": "synthetic/transit"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def test_lines_are_drawn_where_their_stops_are(build):
    for prompt in draw(build, 20):
        picture = np.asarray(prompt.messages[0]["content"][0]["image"])
        for name, stops in prompt.meta["lines"].items():
            (two, three) = (len(stops) == 2, len(stops) == 3)
            assert two or three
            painted = (picture == COLORS[name]).all(-1)
            cells = painted.reshape(3, 28, 3, 28).any((1, 3)).flatten()
            assert all(cells["abcdefghi".index(stop)] for stop in stops if stop not in _met(prompt))


def _met(prompt):
    a, b = prompt.meta["lines"].values()
    (met,) = set(a) & set(b)
    return met


@pytest.mark.parametrize("kind", KINDS)
def test_a_careful_teacher_earns_all_there_is(build, kind):
    """By the reward of the same data, without its charge for the last section."""
    reward = TypeAdapter(Reward).validate_python(
        {"type": "vision/transit_map", "count_transfers_as_sections": False}
    )
    for prompt in draw(build, 20, question=[kind], mistakes=0):
        reply = prompt.meta["demonstration"]
        rollout = Rollout(spans=[Span(None, "assistant", "policy", reply, [], [], [], [])])
        score = reward.grade(rollout, prompt)
        if kind != "planning":
            assert score.value == 10
        else:
            weight = 1.5 if prompt.meta["transfers"] else 1.0
            detail = 9 if prompt.meta["transfers"] else 6
            assert score.value == weight * (10 + 0.5 * detail)


def test_answers(build):
    for prompt in draw(build, 60, question=["TorF1", "Counting2", "Counting1"]):
        words = prompt.messages[0]["content"][-1]["text"].split()
        lines = prompt.meta["lines"]
        if prompt.meta["type"] == "TorF1":
            assert prompt.answer == int(words[-2] in lines[words[2]])
        elif prompt.meta["type"] == "Counting2":
            assert prompt.answer == len(lines[words[5]])
        else:
            assert words[-7::2][prompt.answer] == _met(prompt)


def test_a_careless_teacher(build):
    prompts = draw(build, 200, question=["Counting1"], mistakes=1.0)
    right = sum(p.meta["demonstration"] == f"\\boxed{{{'ABCD'[p.answer]}}}" for p in prompts)
    assert 0.15 < right / 200 < 0.35
