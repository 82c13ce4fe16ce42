"""How near a count in the reply is to the right one."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from trainer.ops.parsing import Unparsable
from trainer.ops.text import last_integer
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Count(AnswerReward):
    """With p the last whole number of the answer and g the right count:

    exact 1[p = g]; within 1[|p - g| <= tolerance]; linear max(0, 1 - |p - g| / max(g, 1));
    exp exp(-|p - g| / max(g, 1)); mra the mean over t in {.50, .55, ..., .95} of
    1[|p - g| / g < 1 - t], for g = 0 1[p = 0].

    The right count is `prompt.answer`, or the column `count`; without any the reward does not
    apply; one that is no count raises. No number, or a negative one: 0, `unparsable`. Source of
    `mra`: VSI-Bench (arXiv:2412.14171).
    """

    needs = frozenset({"answer|meta.count"})
    gold_columns = ("count",)

    kind: Literal["exact", "within", "linear", "exp", "mra"] = "exact"
    tolerance: int = Field(1, ge=0)
    """Of `within`."""
    words: bool = True
    """Read `zero` to `twenty` as numbers."""

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = last_integer(str(gold), words=self.words)
        if right is None or right < 0:
            raise ValueError(f"answer {gold!r} is not a count")
        given = last_integer(answer, words=self.words)
        if given is None or given < 0:
            raise Unparsable("no count in the reply")
        if self.strict and not answer.replace(",", "").isalnum():
            raise Unparsable("the answer is not one count and nothing else")
        return self.value(given, right)

    def value(self, given: int, gold: int) -> float:
        """The formula, of two counts."""
        error = abs(given - gold)
        match self.kind:
            case "exact":
                return float(error == 0)
            case "within":
                return float(error <= self.tolerance)
            case "linear":
                return max(0.0, 1 - error / max(gold, 1))
            case "exp":
                return math.exp(-error / max(gold, 1))
            case _:
                if gold == 0:
                    return float(given == 0)
                # in whole numbers: 0.1 < 1 - 0.9 holds in floating point
                hits = [100 * error < (100 - percent) * gold for percent in range(50, 100, 5)]
                return sum(hits) / len(hits)
