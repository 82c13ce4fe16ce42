"""Whether the reply keeps to the layout that was asked for."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import model_validator

from trainer.rewards.base import Pattern, PointwiseReward, Verdict
from trainer.types import Prompt, Rollout

LAYOUTS = {"think_answer": ("think", "answer"), "answer": ("answer",)}


class Format(PointwiseReward):
    """1 if the layout is kept, else 0.

    `think_answer` is `<think>...</think><answer>...</answer>`, `answer` only the second. Strict:
    these tags once each, nothing but white space outside them. Lenient: the tags once each and in
    order, text outside them allowed. In both no tag may be empty.
    """

    layout: Literal["think_answer", "answer", "custom"] = "think_answer"
    pattern: Pattern | None = None
    """Of `custom`; `.` matches line breaks. Strict: it must match the whole reply, else some part
    of it."""
    strict: bool = True

    @model_validator(mode="after")
    def _pattern_belongs(self) -> Format:
        if (self.layout == "custom") != (self.pattern is not None):
            raise ValueError("layout: custom and pattern go together: give both or neither")
        return self

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        reply = rollout.reply.strip()
        if self.layout == "custom":
            find = re.fullmatch if self.strict else re.search
            return find(self.pattern or "", reply, re.DOTALL) is not None
        return self._keeps(reply, LAYOUTS[self.layout])

    def _keeps(self, reply: str, tags: tuple[str, ...]) -> bool:
        marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
        if any(reply.count(mark) != 1 for mark in marks):
            return False
        pieces, rest = [], reply
        for mark in marks:
            before, found, rest = rest.partition(mark)
            if not found:
                return False
            pieces.append(before.strip())
        outside, inside = [*pieces[::2], rest.strip()], pieces[1::2]
        return all(inside) and not (self.strict and any(outside))
