"""SVG in replies: finding it, what it may not hold, and what its text says."""

from __future__ import annotations

import re
from collections.abc import Collection

from trainer.ops.code_blocks import fenced
from trainer.ops.parsing import Unparsable
from trainer.ops.text import tag_content

_COLOUR = re.compile(r"#(?:[0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3,4})\b", re.I)
_OUTSIDE = re.compile(r"(?:href\s*=|url\()\s*['\"]?\s*(?!#)[^\s'\")#]", re.I)
_COMMENT = re.compile(r"<!--.*?-->", re.S)


def svg_in(reply: str, tag: str = "answer") -> str:
    """Of the last `<tag>`, else of the reply: the last fence of svg, xml or html, or all of it;
    in there the last complete `<svg ...>...</svg>`, else from the last `<svg` to the end, closed.
    Raises `Unparsable`."""
    text = tag_content(reply, tag) or reply
    found = [code for language, code in fenced(text) if language in ("svg", "xml", "html", "")]
    text = found[-1] if found else text
    low = text.lower()
    end = low.rfind("</svg>")
    start = low.rfind("<svg", 0, end) if end >= 0 else -1
    if start >= 0:
        return text[start : end + len("</svg>")]
    start = low.rfind("<svg")
    if start < 0:
        raise Unparsable("no <svg> in the reply")
    return text[start : text.rfind(">") + 1] + "</svg>"


def forbidden(svg: str, elements: Collection[str]) -> str | None:
    """What it holds of `elements`, or a reference to something outside; None if nothing."""
    for name in sorted(elements):
        if re.search(rf"<\s*(?:\w+:)?{re.escape(name)}\b", svg, re.I):
            return f"<{name}>"
    if _OUTSIDE.search(svg):
        return "a reference to something outside"
    return "an entity" if "<!ENTITY" in svg.upper() else None


def colours(svg: str) -> set[str]:
    """Hexadecimal colours, in lower case, six digits, without alpha."""
    found = set()
    for match in _COLOUR.finditer(svg):
        digits = match[0][1:].lower()
        if len(digits) in (3, 4):
            digits = "".join(digit * 2 for digit in digits)
        found.add("#" + digits[:6])
    return found


def set_f1(given: Collection[str], right: Collection[str]) -> float:
    """2 |a & b| / (|a| + |b|); both empty 1."""
    a, b = set(given), set(right)
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0


def brevity(svg: str, longest: int) -> float:
    """max(0, 1 - n / longest) with n characters that are neither blank nor in a comment."""
    n = len("".join(_COMMENT.sub("", svg).split()))
    return max(0.0, 1 - n / longest)
