"""Numbers as charts and their readers write them."""

from __future__ import annotations

import math
import re

_SUFFIX = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "bn": 1e9, "b": 1e9, "billion": 1e9}
_WRITTEN = re.compile(
    r"([-+\u2212]?)\s?[$\u20ac\u00a3\u00a5]?\s?([-+]?)((?:[0-9]{1,30}(?:,[0-9]{3}){0,9}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}))"
    r"\s?(k|thousand|million|m|billion|bn|b)?\s?(%?)",
    re.IGNORECASE,
)


def plain_number(text: str) -> float | None:
    """The rule of ChartQA: `float`, a final `%` divides by 100. No commas, currencies, words. None
    for what is no finite number."""
    text = text.strip()[:100]
    percent = text.endswith("%")
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return value / 100 if percent else value


def written_number(text: str) -> float | None:
    """`$1,234.5`, `2.4k`, `3 million`, `12%` (12: a percent sign is a unit). None if the text is
    anything but one number."""
    match = _WRITTEN.fullmatch(text.strip().rstrip("."))
    if not match:
        return None
    outer, inner, digits, suffix, _ = match.groups()
    value = float(digits.replace(",", "")) * _SUFFIX.get((suffix or "").lower(), 1.0)
    return -value if (outer in ("-", "\u2212")) != (inner == "-") else value
