"""The name of a class."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.ops.parsing import Unparsable
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Label(AnswerReward):
    """With both sides in lower case, without blanks and underscores: 1 if they are equal, or with
    `match: contains` if one is inside the other.

    An empty answer is inside every name: it is `unparsable` unless `least` is 0. The row's answer
    is a name or a list of accepted ones. Sources: Visual-RFT (arXiv:2503.01785; contains, least
    0), CLS-RL (arXiv:2503.16188; equal), ReFine-RFT (contains).
    """

    match: Literal["equal", "contains"] = "equal"
    least: int = Field(1, ge=0)
    """Characters of the shortest text that counts as contained; the released code has 0, where a
    single letter, or nothing, is right."""
    keep_space: bool = False
    """Blanks and underscores count."""

    takes_empty = True

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        accepted = gold if isinstance(gold, list | tuple) else [gold]
        given = self._normal(answer)
        if not given and self.least:
            raise Unparsable("an empty answer")
        return any(self._same(given, self._normal(str(name))) for name in accepted)

    def _same(self, given: str, right: str) -> bool:
        if given == right or self.match == "equal":
            return given == right
        short, long = sorted((given, right), key=len)
        return len(short) >= self.least and short in long

    def _normal(self, text: str) -> str:
        text = text.strip().lower()
        return text if self.keep_space else "".join(text.replace("_", "").split())
