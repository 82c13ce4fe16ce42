"""Steps of an answer: where they end, in its text and in its tokens.

Token ids are never encoded again: characters are traced to tokens by decoding, so a step ends with
the token that wrote its last character, whatever else is in that token. The steps of a span
partition its tokens.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, model_validator

from trainer.plugin import Frozen
from trainer.types import Rollout, Score

Decode = Callable[[Sequence[int]], str]
_PENDING = 4
"""Tokens after which an unfinished character is given up: UTF-8 has four bytes at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one span."""

    text: str
    """What it adds to the span's text, separators included."""
    start: int
    """Its first token, as a place in the span."""
    end: int
    """Its last token."""


class Splitter(Frozen):
    """Where steps end. A piece of white space alone is no step: it belongs to the one before."""

    by: Literal["line", "paragraph", "regex", "tag", "token"] = "paragraph"
    r"""`line`: after newlines; `paragraph`: after blank lines; `regex`: after each match of
    `pattern`; `tag`: after each `</tag>`; `token`: after each token of `token_ids`."""
    pattern: str | None = None
    tag: str = "step"
    token_ids: tuple[int, ...] = ()
    max_steps: int | None = Field(None, gt=0)
    """The last of them takes the rest."""

    @model_validator(mode="after")
    def _complete(self) -> Splitter:
        if self.by == "regex":
            if not self.pattern:
                raise ValueError("by: regex needs `pattern`, the separator: pattern: 'Step \\d+:'")
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(
                    f"pattern: {self.pattern!r} is not a regular expression: {error}"
                ) from None
        if self.by == "token" and not self.token_ids:
            raise ValueError("by: token needs `token_ids`, the ids that end a step: [151643]")
        return self

    def split(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of the steps of a text, in characters; they cover it. [] for white space
        alone. Not for `by: token`, which has no text to look at: the whole is one step."""
        if not text.strip():
            return []
        cuts = [m.end() for m in re.finditer(self._separator(), text) if m.end() > m.start()]
        bounds = [0]
        for cut in [*cuts, len(text)]:
            if text[bounds[-1] : cut].strip():
                bounds.append(cut)
            elif len(bounds) > 1:
                bounds[-1] = cut
        if self.max_steps is not None:
            del bounds[self.max_steps + 1 :]
        bounds[-1] = len(text)
        return list(itertools.pairwise(bounds))

    def steps(self, tokens: Sequence[int], decode: Decode) -> list[Step]:
        """The steps of a span's tokens. Steps that end in one token are one step; the last one
        takes all tokens that are left (an end-of-turn token has no text). [] where there is only
        white space."""
        text, ends = decode(tokens), token_ends(tokens, decode)
        if not text.strip():
            return []
        if self.by == "token":
            last = [at for at, token in enumerate(tokens) if token in self.token_ids]
        else:
            last = [_first_reaching(ends, end) for _, end in self.split(text)]
        last = sorted({at for at in last if text[ends[at] :].strip()})
        if self.max_steps is not None:
            last = last[: self.max_steps - 1]
        last.append(len(tokens) - 1)
        found, start, char = [], 0, 0
        for end in last:
            stop = len(text) if end == len(tokens) - 1 else ends[end]
            found.append(Step(text[char:stop], start, end))
            start, char = end + 1, stop
        return found

    def _separator(self) -> str:
        if self.by == "regex":
            return self.pattern or ""
        if self.by == "tag":
            return re.escape(f"</{self.tag}>") + r"\s*"
        return {"line": r"\n+", "paragraph": r"\n[ \t]*\n\s*"}.get(self.by, r"(?!)")


def token_ends(tokens: Sequence[int], decode: Decode) -> list[int]:
    """For each token how many characters of `decode(tokens)` are whole once it is there; rising.

    A character whose bytes lie in several tokens belongs to the last of them. Decodes each distinct
    token once where their texts add up to the whole, a few tokens at a time where a token's text
    depends on the one before it, and prefix by prefix where that fails too.
    """
    text = decode(tokens)
    ends = _ends_by_token(tokens, decode, text) or _ends_by_window(tokens, decode, text)
    if ends is None:
        ends = [_common(decode(tokens[: at + 1]), text) for at in range(len(tokens))]
        ends = list(itertools.accumulate(ends, max))
    if ends:
        ends[-1] = len(text)
    return ends


def _ends_by_token(tokens: Sequence[int], decode: Decode, text: str) -> list[int] | None:
    """None if the texts of the tokens do not add up to the whole."""
    pieces = {token: decode([token]) for token in set(tokens)}
    ends: list[int] = []
    pending: list[int] = []
    done = 0
    for token in tokens:
        piece = pieces[token]
        if pending or "\ufffd" in piece:
            pending.append(token)
            piece = decode(pending)
            if piece.endswith("\ufffd") and len(pending) < _PENDING:
                ends.append(done)
                continue
            pending = []
        if text[done : done + len(piece)] != piece:
            return None
        done += len(piece)
        ends.append(done)
    return ends if done == len(text) or pending else None


def _ends_by_window(tokens: Sequence[int], decode: Decode, text: str) -> list[int] | None:
    """None if what the tokens add, each read after the ones before it, is not the whole."""
    ends: list[int] = []
    start, read, done = 0, 0, 0  # the window, where its known part ends, characters before that
    for at in range(len(tokens)):
        before, after = decode(tokens[start:read]), decode(tokens[start : at + 1])
        unfinished = after.endswith("\ufffd") and at + 1 - read < _PENDING
        if not unfinished and len(after) >= len(before):
            done += len(after) - len(before)
            start, read = read, at + 1
        ends.append(done)
    return ends if done == len(text) or (read < len(tokens) and done < len(text)) else None


def step_scores(score: Score) -> list[tuple[int, int, float]]:
    """(span, place of the step's last token, its score) of every step, in the spans' order."""
    return [
        (span, end, score.tokens[span][end])
        for span in sorted(score.steps)
        for end in score.steps[span]
    ]


def with_step_scores(score: Score, rewards: Sequence[float | None]) -> Score:
    """The score with other rewards for its steps, in the order of `step_scores`, and no further
    token reward. None takes the step out."""
    tokens = {span: [0.0] * len(values) for span, values in score.tokens.items()}
    steps: dict[int, list[int]] = {}
    for (span, end, _), reward in zip(step_scores(score), rewards, strict=True):
        if reward is not None:
            tokens[span][end] = reward
            steps.setdefault(span, []).append(end)
    return replace(score, tokens=tokens, steps=steps)


def policy_spans(rollout: Rollout) -> Iterator[int]:
    """Indices of the spans that the policy wrote, where they have tokens."""
    for index, span in enumerate(rollout.spans):
        if span.author == "policy" and span.tokens:
            yield index


def cut_after(rollout: Rollout, span: int, step: Step, text: str) -> Rollout:
    """The rollout as it was when `step` of `span` was over: the path to the span, which ends with
    the step's last token and whose message is `text`."""
    path = rollout.path(span)
    place = {old: new for new, old in enumerate(path)}
    spans = []
    for old in path:
        whole = rollout.spans[old]
        parent = None if whole.parent is None else place[whole.parent]
        spans.append(replace(whole, parent=parent))
    last, size = spans[-1], step.end + 1
    spans[-1] = replace(
        last,
        message=text,
        tokens=last.tokens[:size],
        sampled=last.sampled[:size],
        logprobs=last.logprobs[:size],
        version=last.version[:size],
    )
    return replace(rollout, spans=spans, score=None)


def _first_reaching(ends: Sequence[int], char: int) -> int:
    return next((at for at, end in enumerate(ends) if end >= char), len(ends) - 1)


def _common(prefix: str, text: str) -> int:
    """Characters that both begin with."""
    pairs = enumerate(zip(prefix, text, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(prefix), len(text)))
