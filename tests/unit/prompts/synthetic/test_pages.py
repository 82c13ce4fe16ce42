from __future__ import annotations

import pytest
from pydantic import ValidationError


def draw(build, n, **fields):
    stream = build({"type": "synthetic/pages"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def ranking(prompt):
    return [int(i) for i in prompt.meta["demonstration"].split("[")[1][:-10].split(",")]


def test_the_right_pages_show_the_colour(build):
    for prompt in draw(build, 30):
        shown = [
            i
            for i, (color, _) in enumerate(prompt.meta["items"], 1)
            if color == prompt.meta["color"]
        ]
        assert prompt.answer == shown == prompt.meta["positives"]
        assert 1 <= len(shown) <= 2
        assert prompt.meta["candidates"] == 5
        images = [p for p in prompt.messages[0]["content"] if p["type"] == "image"]
        assert len(images) == 5


def test_the_teacher_ranks_every_page(build):
    for prompt in draw(build, 30, swaps=0):
        order = ranking(prompt)
        assert sorted(order) == [1, 2, 3, 4, 5]
        assert sorted(order[: len(prompt.answer)]) == prompt.answer
    swapped = draw(build, 60)
    assert any(ranking(p)[0] not in p.answer for p in swapped)
    assert {p.meta["color"] for p in draw(build, 20, colors=["red"])} == {"red"}
    with pytest.raises(ValidationError, match="must be below pages"):
        draw(build, 1, most=5)
