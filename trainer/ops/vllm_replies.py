"""Reads what a vLLM server answers, and refuses what cannot be an answer."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any, NamedTuple

from trainer.ops.member import MemberFault
from trainer.ops.vllm_arguments import versions

_NO_MASS = -9999.0
"""What vLLM writes for a log-prob of minus infinity."""


class Reply(NamedTuple):
    """The fields of `engines.base.Completion`."""

    tokens: list[int]
    logprobs: list[float]
    version: list[int]
    finish: str


def choice(answer: Any) -> dict[str, Any]:
    try:
        return answer["choices"][0]
    except (KeyError, IndexError, TypeError):
        raise MemberFault(f"an answer without choices: {str(answer)[:200]}") from None


def completion(
    answer: Any,
    *,
    vocabulary: int,
    banned: Container[int],
    most: int,
    started: int,
    may_change: bool,
) -> Reply:
    """Reads a reply; MemberFault if it is none: wrong lengths, unknown ids, no log-probs.
    `may_change`: its weights were not fixed when it began, at version `started`."""
    found = choice(answer)
    tokens: Any = found.get("token_ids")
    finish: Any = found.get("finish_reason")
    content = (found.get("logprobs") or {}).get("content") or []
    scores = [entry.get("logprob") for entry in content]
    whole = (
        isinstance(tokens, list)
        and len(tokens) == len(scores) <= most
        and finish in ("stop", "length", "abort")
        and (tokens or finish == "abort")
        and all(isinstance(token, int) and 0 <= token < vocabulary for token in tokens)
        and all(isinstance(score, float | int) and _NO_MASS < score <= 1e-3 for score in scores)
        and not any(token in banned for token in tokens)
    )
    if not whole:
        raise MemberFault(f"nonsense instead of a reply: {str(found)[:300]}")
    spans = [
        (span["version"], span["start"], span["end"]) for span in found.get("weight_versions") or ()
    ]
    # Without vLLM's own record the oldest version is the safe one to name.
    known = spans and may_change
    version = versions(spans, len(tokens)) if known else [started] * len(tokens)
    return Reply(tokens, scores, version, finish)


def prompt_scores(answer: Any, tokens: list[int]) -> list[float]:
    listed = answer.get("prompt_logprobs") if isinstance(answer, dict) else None
    if not isinstance(listed, list) or len(listed) != len(tokens):
        raise MemberFault(f"no prompt log-probs in {str(answer)[:200]}")
    found = [at[str(token)]["logprob"] for token, at in zip(tokens[1:], listed[1:], strict=True)]
    return [-math.inf if score <= _NO_MASS else score for score in found]


def largest_gap(ours: list[list[float]], theirs: list[list[float]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    gaps = (abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True) if a != b)
    return max(gaps, default=0.0)
