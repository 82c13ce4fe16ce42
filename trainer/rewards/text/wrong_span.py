"""Naming the words that were changed in a caption (ViCrit)."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from trainer.ops.parsing import LONGEST, Unparsable
from trainer.ops.text import last_boxed, normalise
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout

_FIRST_BOX = re.compile(r"\\boxed\s*\{")


class WrongSpan(AnswerReward):
    r"""With v the changed phrase and u the original, a the text in the reply's `\boxed{}` (else its
    last line): strict 1[a = v] in any case, without quotes around it and a final full stop;
    relaxed 1[the first word of v that is not shared with u at either end is in a]; f1 the F1 of
    words of a and v, 0 for answers longer than 2 |v| + 2 words.

    relaxed is what the released scorer does, and is won by quoting the whole caption. Columns
    `solution_target` (or the answer) and `solution_original`. A row whose change cannot be named (a
    deletion) does not apply to relaxed. Source: ViCrit (arXiv:2506.10128).
    """

    needs = frozenset({"answer|meta.solution_target"})
    gold_columns = ("solution_target",)

    kind: Literal["strict", "relaxed", "f1"] = "strict"
    pick: Literal["first", "last"] = "first"
    """Which of several boxes counts."""
    shortest: int = Field(0, ge=0)
    """relaxed: a changed word with fewer letters must be a whole word of the answer."""

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        text = rollout.reply[-LONGEST:]
        given, right = self._given(text), str(gold)
        if self.kind == "strict":
            return _plain(given) == _plain(right)
        if self.kind == "f1":
            return self._f1(_plain(given).split(), _plain(right).split())
        original = prompt.meta.get("solution_original")
        if not isinstance(original, str):
            raise ValueError("the column solution_original is needed for kind: relaxed")
        words = changed(original, right)
        if not words:
            return None
        said = given.lower()
        return words[0] in (said if len(words[0]) >= self.shortest else said.split())

    def _given(self, text: str) -> str:
        boxes = list(_FIRST_BOX.finditer(text))
        if not boxes:
            lines = text.strip().splitlines()
            return lines[-1] if lines else ""
        found = last_boxed(text) if self.pick == "last" else _balanced(text, boxes[0].end())
        if found is None:
            raise Unparsable(r"\boxed{ is never closed")
        return found

    @staticmethod
    def _f1(given: list[str], right: list[str]) -> float:
        if len(given) > 2 * len(right) + 2:
            return 0.0
        shared = sum(min(given.count(word), right.count(word)) for word in set(given))
        return 2 * shared / (len(given) + len(right)) if shared else 0.0


def changed(original: str, target: str) -> list[str]:
    """Words of `target`, lower case, in neither the common beginning nor the common end."""
    a, b = original.lower().split(), target.lower().split()
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return b[start : len(b) - end]


def _balanced(text: str, start: int) -> str | None:
    depth = 1
    for match in re.finditer(r"[{}]", text[start:]):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return text[start : start + match.start()].strip()
    return None


def _plain(text: str) -> str:
    return normalise(text).strip("\"'\u201c\u201d\u2018\u2019 ").rstrip(".").strip()
