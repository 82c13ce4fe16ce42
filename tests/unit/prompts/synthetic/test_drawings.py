"""Each description's picture, looked at pixel by pixel; the teacher's mistakes draw others."""

from __future__ import annotations

import io
import random

import pytest

from trainer.prompts.synthetic.drawings import Drawings


def picture(svg: str):
    resvg = pytest.importorskip("resvg_py")
    image = pytest.importorskip("PIL.Image")
    data = resvg.svg_to_bytes(svg_string=svg, width=100, height=100, background="white")
    return image.open(io.BytesIO(bytes(data))).convert("RGB")


@pytest.mark.parametrize(
    ("question", "inside", "outside", "colour"),
    [
        ("red circle at 3,4 size 2\n", (48, 40), (48, 58), (255, 0, 0)),  # a corner is outside
        ("blue square at 3,4 size 2\n", (48, 58), (52, 40), (0, 0, 255)),
    ],
)
def test_what_is_drawn(question, inside, outside, colour):
    row = next(r for r in Drawings().rows() if r["question"] == question)
    seen = picture(row["svg"])
    assert seen.getpixel(inside) == colour
    assert seen.getpixel(outside) == (255, 255, 255)


def test_every_problem_is_another_one():
    rows = Drawings().rows()
    assert len({row["svg"] for row in rows}) == len(rows) == 4 * 2 * 25 * 3


def test_a_careless_teacher():
    source, rng = Drawings(teacher_error=1.0), random.Random(0)
    for index in range(0, 600, 5):
        row = source.rows()[index]
        drawn = source.drawn(row, rng)["demonstration"]
        assert drawn.startswith("<svg viewBox=")
        assert drawn != row["svg"]
    assert Drawings(teacher_error=0.0).drawn(row, rng)["demonstration"] == row["svg"]
