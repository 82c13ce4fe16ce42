"""How near a count in the reply is to the right one."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from trainer.ops.text import last_integer, tag_content
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Count(PointwiseReward):
    """With p the last whole number of the last `<answer>` and g the right count:

    exact 1[p = g]; within 1[|p - g| <= tolerance]; linear max(0, 1 - |p - g| / max(g, 1));
    exp exp(-|p - g| / max(g, 1)); mra the mean over t in {.50, .55, ..., .95} of
    1[|p - g| / g < 1 - t], for g = 0 1[p = 0].

    The right count is `prompt.answer`, or the column `count`; without any the reward does not
    apply; one that is no count raises. No number, or a negative one: 0, `unparsable`. Source of
    `mra`: VSI-Bench (arXiv:2412.14171).
    """

    needs = frozenset({"answer|meta.count"})

    kind: Literal["exact", "within", "linear", "exp", "mra"] = "exact"
    tolerance: int = Field(1, ge=0)
    """Of `within`."""
    words: bool = True
    """Read `zero` to `twenty` as numbers."""
    require_tag: bool = False
    """Without `<answer>` the reply is unparsable; else all of it is read."""
    tag: str = "answer"

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        raw = prompt.meta.get("count") if prompt.answer is None else prompt.answer
        if raw is None:
            reason = "the row has neither answer nor count"
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason=reason)
        gold = last_integer(str(raw), words=self.words)
        if gold is None or gold < 0:
            raise ValueError(f"answer {raw!r} is not a count")
        text = tag_content(rollout.reply, self.tag)
        if text is None and not self.require_tag:
            text = rollout.reply
        given = last_integer(text, words=self.words) if text else None
        if given is None or given < 0:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason="no count in the reply")
        return self.value(given, gold)

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
