"""Curves in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """At most `width` bars from the smallest to the largest value, each the mean of its share of
    the values. "" for none; a flat line for equal values."""
    if not values:
        return ""
    n = min(width, len(values))
    edges = [round(i * len(values) / n) for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return BARS[0] * n
    top = len(BARS) - 1
    return "".join(BARS[round((mean - low) / (high - low) * top)] for mean in means)


class Sparkline:
    """`sparkline` as a rich renderable: as wide as the place it is given, `width` at the most."""

    def __init__(self, values: Sequence[float], width: int = 40, style: str = "cyan"):
        self.values, self.width, self.style = values, width, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(sparkline(self.values, min(self.width, options.max_width)), self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(min(8, options.max_width), min(self.width, options.max_width))
