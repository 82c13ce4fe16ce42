from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

LETTERS = "abcdefghijkl"


def places(prompt) -> list[int]:
    """Where the demonstration leads, its start first; checks every move on the way."""
    meta = prompt.meta
    walk, found = meta["demonstration"], [LETTERS.index(meta["start"])]
    for sign, letter in zip(walk[::2], walk[1::2], strict=True):
        found.append(found[-1] + {"+": 1, "-": -1}[sign])
        assert LETTERS[found[-1]] == letter
    return found


def test_the_teacher_walks_aimlessly_and_stops_at_the_goal(build):
    stream = build({"type": "synthetic/walk", "places": 6, "moves": 9}).stream(0)
    away = moves = arrived = 0
    for _ in range(300):
        prompt = next(stream)
        meta, found = prompt.meta, places(prompt)
        goal = LETTERS.index(meta["goal"])
        assert meta["question"] == f"{meta['start']}>{meta['goal']}:"
        assert meta["level"] == abs(goal - found[0]) > 0
        assert min(found) >= 0
        assert max(found) < 6
        assert goal not in found[:-1]
        assert found[-1] == goal or len(found) == 10
        arrived += found[-1] == goal
        moves += len(found) - 1
        away += sum(abs(b - goal) > abs(a - goal) for a, b in pairwise(found))
    assert 100 < arrived < 290
    assert 0.3 < away / moves < 0.55


def test_an_idle_teacher_goes_on_with_dots_where_he_failed(build):
    spec = {"type": "synthetic/walk", "places": 6, "moves": 4}
    plain, stream = build(spec).stream(0), build(spec | {"idle": 0.8}).stream(0)
    dots = []
    for _ in range(300):
        walk, meta = next(plain).meta["demonstration"], next(stream).meta
        more = meta["demonstration"].removeprefix(walk)
        assert set(more) <= {"."}
        assert not more or walk[-1] != meta["goal"]
        if walk[-1] != meta["goal"]:
            dots.append(len(more))
    assert 0 in dots
    assert 3 < sum(dots) / len(dots) < 5


def test_every_pair_is_in_one_split(build):
    source = build({"type": "synthetic/walk", "places": 5, "holdout": 6})
    stream = source.stream(0)
    trained = {next(stream).meta["question"] for _ in range(14 * 3)}
    held = {prompt.meta["question"] for prompt in source.heldout()}
    assert (len(trained), len(held)) == (14, 6)
    assert not trained & held


def test_resume(build, resumes):
    resumes(build("synthetic/walk"), 17)


@pytest.mark.parametrize("settings", [{"places": 27}, {"places": 2}, {"moves": 0}])
def test_bad_values(build, settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build({"type": "synthetic/walk"} | settings)
