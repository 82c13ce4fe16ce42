"""From characters of a reply to the tokens that wrote them. No text is ever encoded again."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"  # what a tokenizer gives for part of a character


def character_spans(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> list[tuple[int, int]]:
    """[n] (start, end) of the characters of each token in the decoded text.

    A character that several tokens make up (bytes of `é`) belongs to each of them; a token without
    text (a special one that is not shown) has start == end. `decode` is called on windows of a few
    tokens, so the whole is linear.
    """
    spans: list[tuple[int, int]] = []
    shown, done, first = 0, 0, 0  # characters out; tokens out; where the window begins
    for n in range(1, len(tokens) + 1):
        known = decode(tokens[first:done])
        text = decode(tokens[first:n])
        if text.endswith(_UNFINISHED) and n < len(tokens) and n - done < 8:
            continue
        length = max(0, len(text) - len(known))
        spans += [(shown, shown + length)] * (n - done)
        shown += length
        first, done = done, n  # one token of context: some tokenizers drop a leading blank
    return spans


def token_range(spans: Sequence[tuple[int, int]], start: int, end: int) -> range:
    """Tokens that hold any character of `[start, end)`; an empty range for none."""
    if start >= end:
        return range(0)
    first = bisect.bisect_right([stop for _, stop in spans], start)
    last = bisect.bisect_left([begin for begin, _ in spans], end)
    return range(first, max(first, last))
