from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError


def draw(build, n, **fields):
    stream = build({"type": "synthetic/codes"} | fields).stream(0)
    return [next(stream) for _ in range(n)]


def cells(prompt):
    picture = np.asarray(prompt.messages[0]["content"][0]["image"])
    return np.split(picture, picture.shape[1] // 28, axis=1)


def test_each_digit_has_its_own_look(build):
    looks: dict[str, set[bytes]] = {}
    for prompt in draw(build, 30):
        digits = prompt.answer.split()
        assert len(digits) == len(cells(prompt)) == prompt.meta["level"]
        assert 3 <= len(digits) <= 6
        for digit, cell in zip(digits, cells(prompt), strict=True):
            looks.setdefault(digit, set()).add(cell.tobytes())
    assert sorted(looks) == list("0123456789")
    assert all(len(found) == 1 for found in looks.values())
    assert len(set().union(*looks.values())) == 10


def test_the_teacher(build):
    exact = draw(build, 10, misses=0, mistakes=0)
    assert all(p.meta["demonstration"] == f"<answer>{p.answer}</answer>" for p in exact)
    short = draw(build, 200, misses=0.5, mistakes=0)
    kept = sum(len(p.meta["demonstration"][8:-9].split()) for p in short)
    assert 0.4 < kept / sum(p.meta["level"] for p in short) < 0.6
    with pytest.raises(ValidationError, match="least <= most"):
        draw(build, 1, digits=[4, 2])
