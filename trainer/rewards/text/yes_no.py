"""A judgement: yes or no in many words."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from trainer.ops.parsing import Unparsable
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class YesNo(AnswerReward):
    """1 if answer and row say the same, else 0; no word for either: 0, `unparsable`.

    With `order: yes_first`, as in Curr-ReFT's code (arXiv:2503.07065), a text with any of the words
    for yes is yes, so "not correct" is yes; `last` takes the last word for either.
    """

    yes: tuple[str, ...] = Field(("yes", "true", "correct"), min_length=1)
    no: tuple[str, ...] = Field(("no", "false", "incorrect"), min_length=1)
    order: Literal["yes_first", "last"] = "yes_first"

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = self.reading(str(gold))
        if right is None:
            raise ValueError(f"answer {gold!r} is neither of {self.yes} nor of {self.no}")
        given = self.reading(answer)
        if given is None:
            raise Unparsable("neither yes nor no in the answer")
        return given == right

    def reading(self, text: str) -> bool | None:
        """Whether a text says yes; None for neither."""
        words = re.findall(r"[a-z]+", text.lower())
        if self.order == "last":
            words = [w for w in words if w in self.yes or w in self.no][-1:]
        if any(word in self.yes for word in words):
            return True
        return False if any(word in self.no for word in words) else None
