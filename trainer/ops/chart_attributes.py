"""What a chart holds besides its pixels, and how much of it two charts share."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

MOST_VALUES = 2000
MOST_PIXELS = 16_000_000


@dataclass(frozen=True, slots=True)
class Drawn:
    """A rendered chart: the picture and its attributes."""

    image: Any
    texts: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    layout: tuple[tuple[int, ...], ...] = ()
    colours: tuple[str, ...] = ()


def read_drawn(data: bytes) -> Drawn:
    """Undoes `chart_driver`, of bytes that nobody vouches for. Raises ValueError with why."""
    from PIL import Image

    try:
        told = json.loads(data)
        if "error" in told:
            raise ValueError(str(told["error"])[:300])
        image = Image.open(io.BytesIO(base64.b64decode(told["png"])), formats=["PNG"])
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"the picture has more than {MOST_PIXELS} pixels")
        image.load()
        return Drawn(
            image,
            tuple(str(text) for text in told["texts"]),
            tuple(float(number) for number in told["values"][:MOST_VALUES]),
            tuple(tuple(int(number) for number in place) for place in told["layout"]),
            tuple(str(colour) for colour in told["colours"]),
        )
    except (KeyError, TypeError, OSError, RecursionError, SyntaxError, OverflowError) as error:
        raise ValueError(f"no chart came back ({type(error).__name__})") from None


def jaccard(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """|a & b| / |a | b| of sets; both empty 1, one empty 0."""
    one, two = set(a), set(b)
    return len(one & two) / len(one | two) if one | two else 1.0


def near_jaccard(a: Sequence[float], b: Sequence[float], tolerance: float) -> float:
    """As `jaccard` with numbers matched one to one where |x - y| <= tolerance max(|x|, |y|): both
    sides sorted, matched from the smallest. Repeated numbers count once."""
    one, two = sorted(set(a)), sorted(set(b))
    if not one and not two:
        return 1.0
    i = j = both = 0
    while i < len(one) and j < len(two):
        x, y = one[i], two[j]
        if abs(x - y) <= tolerance * max(abs(x), abs(y)):
            both, i, j = both + 1, i + 1, j + 1
        elif x < y:
            i += 1
        else:
            j += 1
    return both / (len(one) + len(two) - both)


def shared(given: Drawn, right: Drawn, tolerance: float) -> dict[str, float]:
    """Jaccard indices of texts, values, layout and colours."""
    return {
        "text": jaccard(given.texts, right.texts),
        "value": near_jaccard(given.values, right.values, tolerance),
        "layout": jaccard(given.layout, right.layout),
        "colour": jaccard(given.colours, right.colours),
    }
