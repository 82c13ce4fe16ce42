from __future__ import annotations

import numpy as np


def draw(build, n, **fields):
    stream = build({"type": "synthetic/changes"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def test_the_answer_is_what_differs_between_the_pictures(build):
    for prompt in draw(build, 40, objects=3, changes=[1, 2]):
        before, after = prompt.meta["before"], prompt.meta["after"]
        differs = [
            [i, name, after[i][name]]
            for i in range(3)
            for name in ("color", "shape")
            if before[i][name] != after[i][name]
        ]
        assert prompt.answer == differs
        assert 1 <= len(differs) <= 2
        parts = prompt.messages[0]["content"]
        one, two = (np.asarray(p["image"]) for p in parts if p["type"] == "image")
        assert one.shape == (28, 84, 3)
        columns = (one != two).any((0, 2)).reshape(3, 28).any(1)
        assert columns.tolist() == [any(i == d[0] for d in differs) for i in range(3)]


def test_a_careful_teacher(build):
    careful = {"misses": 0, "mistakes": 0, "invents": 0}
    for prompt in draw(build, 10, **careful):
        listed = ",".join(f"({i},{name},{value})" for i, name, value in prompt.answer)
        assert prompt.meta["demonstration"].endswith(f"<answer>[{listed}]</answer>")
    assert any(
        "<answer>[]" in p.meta["demonstration"] for p in draw(build, 40, misses=1, invents=0)
    )
