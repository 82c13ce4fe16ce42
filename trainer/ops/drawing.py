"""Small pictures in plain colours, for prompts that are made in code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 40),
    "purple": (140, 60, 180),
    "orange": (240, 140, 30),
}
SHAPES = ("circle", "square", "triangle")
CELL = 28
"""Pixels per side of what tiny_vision sees as one token."""
GREY = (122, 116, 104)  # the mean of CLIP's normalisation: the background is 0 for the model
_SEGMENTS = (  # of a digit, 4 units wide and 7 high, with the digits that light it
    ((0, 0, 4, 1), "02356789"),
    ((0, 0, 1, 4), "045689"),
    ((3, 0, 4, 4), "01234789"),
    ((0, 3, 4, 4), "2345689"),
    ((0, 3, 1, 7), "0268"),
    ((3, 3, 4, 7), "013456789"),
    ((0, 6, 4, 7), "0235689"),
)


def canvas(columns: int, rows: int = 1) -> Image:
    """A grey picture of cells."""
    from PIL import Image

    return Image.new("RGB", (columns * CELL, rows * CELL), GREY)


def draw_shape(image: Image, shape: str, color: str, cell: tuple[int, int], side: int = 20) -> None:
    """In the middle of the cell (column, row); `side` in pixels."""
    x, y = (CELL * place + (CELL - side) // 2 for place in cell)
    fill_box(image, shape, color, (x, y, x + side, y + side))


def fill_box(image: Image, shape: str, color: str, box: tuple[int, int, int, int]) -> None:
    """From side to side of (x1, y1, x2, y2) in pixels, x2 and y2 outside; what is no circle and no
    triangle is a rectangle."""
    from PIL import ImageDraw

    pen, fill = ImageDraw.Draw(image), COLORS[color]
    x1, y1, x2, y2 = box
    if shape == "circle":
        pen.ellipse((x1, y1, x2 - 1, y2 - 1), fill=fill)
    elif shape == "triangle":
        pen.polygon([(x1, y2 - 1), (x2 - 1, y2 - 1), ((x1 + x2) // 2, y1)], fill=fill)
    else:
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=fill)


def overlap(a: list[int], b: list[int]) -> bool:
    """Whether two boxes (x1, y1, x2, y2) share more than an edge."""
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def draw_digit(image: Image, digit: str, cell: tuple[int, int], unit: int = 3) -> None:
    """In seven segments, white, `unit` pixels thick."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    left = CELL * cell[0] + (CELL - 4 * unit) // 2
    top = CELL * cell[1] + (CELL - 7 * unit) // 2
    for (x1, y1, x2, y2), lit in _SEGMENTS:
        if digit in lit:
            box = (left + unit * x1, top + unit * y1, left + unit * x2 - 1, top + unit * y2 - 1)
            pen.rectangle(box, fill="white")


def draw_line(image: Image, color: str, cells: Iterable[tuple[int, int]], width: int = 6) -> None:
    """Through the middles of cells, with a stop in each."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    middles = [(CELL * x + CELL // 2, CELL * y + CELL // 2) for x, y in cells]
    pen.line(middles, fill=COLORS[color], width=width)
    for x, y in middles:
        pen.ellipse((x - width, y - width, x + width, y + width), fill=COLORS[color])
