"""Answers without content that generative judges are known to say yes to."""

from __future__ import annotations

from collections.abc import Iterable

MASTER_KEYS = (
    " ",
    ".",
    ",",
    ":",
    "Thought process:",
    "Let's solve this problem step by step.",
    "Solution",
    "解",
    "かいせつ",
    "Respuesta",
)
"""After One Token to Fool LLM-as-a-Judge (arXiv:2507.08794)."""


def is_master_key(
    candidate: str, references: Iterable[str] = (), keys: Iterable[str] = MASTER_KEYS
) -> bool:
    """True for a candidate without any letter or digit of any script, or equal to one of `keys`
    (case, and signs and white space around it, do not matter), unless one of `references` is the
    very same text."""
    said = candidate.strip().casefold()
    if said and any(said == text.strip().casefold() for text in references):
        return False
    bare = _bare(said)
    return not bare or bare in {_bare(key.casefold()) for key in keys}


def _bare(text: str) -> str:
    """Without what stands before the first and after the last letter or digit."""
    inside = [i for i, character in enumerate(text) if character.isalnum()]
    return text[inside[0] : inside[-1] + 1] if inside else ""
