from __future__ import annotations

import numpy as np
import pytest

from trainer.ops.drawing import COLORS, SHAPES, canvas, draw_digit, draw_line, draw_shape


def painted(image):
    pixels = np.asarray(image).astype(int)
    return (pixels != np.asarray(canvas(1))[0, 0]).any(-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_the_middle_of_their_cell(shape):
    image = canvas(3, 2)
    draw_shape(image, shape, "red", (2, 1))
    ys, xs = np.nonzero(painted(image))
    assert [xs.min(), xs.max(), ys.min(), ys.max()] == [60, 79, 32, 51]
    assert (np.asarray(image)[painted(image)] == COLORS["red"]).all()
    share = painted(image).sum() / 400
    assert share == pytest.approx({"circle": 0.785, "square": 1, "triangle": 0.5}[shape], abs=0.06)


def test_digits_light_their_segments():
    lit = {}
    for digit in "0123456789":
        image = canvas(1)
        draw_digit(image, digit, (0, 0))
        lit[digit] = int(painted(image).sum())
    assert lit["8"] == max(lit.values())
    assert lit["1"] == min(lit.values()) == 3 * 3 * 7
    assert len(set(lit.values())) > 4


def test_a_line_joins_its_stops():
    image = canvas(3)
    draw_line(image, "blue", [(0, 0), (2, 0)])
    row = painted(image)[14]
    assert row[8:76].all()
    assert not row[:8].any()
    assert not row[77:].any()
