"""Stop strings, looked for in text while tokens arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_SLACK = 4
"""Tokens decoded before the longest stop string: a cut character there does no harm."""


class StopText:
    """Says when the last token has completed one of some strings.

    A token can hold part of a string, several characters or part of one, so the tail of the
    tokens is decoded, not single tokens. Most steps are answered by a memory of the tokens' own
    texts: a token that does not hold the last character of a stop string cannot complete it.
    """

    def __init__(self, strings: Sequence[str], decode: Callable[[list[int]], str]):
        self._strings = tuple(strings)
        self._decode = decode
        # Every token has at least one byte of the text.
        self._tail = max(len(s.encode()) for s in strings) + _SLACK
        self._last = {s[-1] for s in strings}
        # Some tokenizers strip blanks from a lone token.
        self._always = any(character.isspace() for character in self._last)
        self._candidates: dict[int, bool] = {}

    def completed(self, tokens: list[int]) -> bool:
        """True if the text of `tokens` has a stop string that ends in the last token; the ones
        before it have been checked already."""
        if not self._always and not self._may_complete(tokens[-1]):
            return False
        text = self._decode(tokens[-self._tail :])
        return any(string in text for string in self._strings)

    def _may_complete(self, token: int) -> bool:
        if token not in self._candidates:
            text = self._decode([token])
            part_of_character = "\ufffd" in text
            self._candidates[token] = part_of_character or any(c in text for c in self._last)
        return self._candidates[token]
