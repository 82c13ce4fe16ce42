"""Fields of a reply, each with the characters it was read from. Linear in the length of the text.

What cannot be read raises `Unparsable`, whose text is the reason that is logged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 200_000
"""Characters of the longest answer that is read; nothing a person asked for is longer."""


class Unparsable(Exception):
    """The reply does not say what it was asked for; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Field:
    """`reply[start:end] == text`, white space around it left out."""

    text: str
    start: int
    end: int

    @classmethod
    def of(cls, reply: str, start: int, end: int) -> Field:
        """The field between two places, stripped."""
        text = reply[start:end]
        start += len(text) - len(text.lstrip())
        text = text.strip()
        return cls(text, start, start + len(text))


def tag_fields(reply: str, tag: str) -> list[Field]:
    """Every complete `<tag>...</tag>`, in order; it may span lines. An opening is closed by the
    next end; of nested ones the innermost counts, and an opening without an end does not."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    pattern = re.compile(f"{re.escape(opening)}|{re.escape(closing)}")
    found, start = [], -1
    for match in pattern.finditer(reply):
        if match.group() == opening:
            start = match.end()
        elif start >= 0:
            found.append(Field.of(reply, start, match.start()))
            start = -1
    return found


def answer_field(
    reply: str,
    tag: str = "answer",
    *,
    require_tag: bool = False,
    strict: bool = False,
    empty: bool = False,
) -> Field:
    """The answer: what the last complete, not empty `<tag>` holds.

    Lenient: without any tag it is the whole reply, unless `require_tag`. Strict: the tag must be
    there exactly once, opened before it is closed. `empty`: an empty last tag is an answer.
    Raises Unparsable, also for an answer of more than `LONGEST` characters.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    if strict:
        openings, closings = reply.count(opening), reply.count(closing)
        if (openings, closings) != (1, 1):
            raise Unparsable(f"{openings} {opening} and {closings} {closing}, not one of each")
    end = reply.rfind(closing)
    start = reply.rfind(opening, 0, end) if end >= 0 else -1
    if start < 0:
        if require_tag or strict:
            raise Unparsable(f"no <{tag}>...</{tag}> in the reply")
        return _short(Field.of(reply, 0, len(reply)), "the reply")
    inside = start + len(opening)
    field = Field.of(reply, inside, reply.find(closing, inside))
    if not field.text and not empty:
        begin = max(0, start - LONGEST)
        filled = [f for f in tag_fields(reply[begin:], tag) if f.text]
        if not filled or strict:
            raise Unparsable(f"<{tag}> is empty")
        field = Field(filled[-1].text, begin + filled[-1].start, begin + filled[-1].end)
    return _short(field, f"<{tag}>")


def unwrapped(text: str, tag: str = "answer") -> str:
    """What the last `<tag>` of a data row's text holds; the text itself without one."""
    fields = tag_fields(text, tag) if f"</{tag}>" in text else []
    return fields[-1].text if fields else text.strip()


def _short(field: Field, what: str) -> Field:
    if len(field.text) > LONGEST:
        raise Unparsable(f"{what} has {len(field.text)} characters, more than {LONGEST}")
    return field
