"""A ranking of candidates (MM-R5)."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from trainer.ops.parsing import Unparsable
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout, Score

_IDS = re.compile(r"\[\s*(-?\d{1,9}(?:\s*,\s*-?\d{1,9}){0,999})\s*\]")


class Rerank(AnswerReward):
    """rank = sum over the right ids of 1 / place^exponent, over the same sum for places 1, 2, ...;
    list = (N - ||o| - N|) / N times the share of ids in 1..N, for a ranking o of N candidates.

    The first place of an id counts. list may fall under 0 for lists longer than 2 N. Value:
    rank_weight * rank + list_weight * list; both are parts. No list of whole numbers: 0,
    `unparsable`. Columns: `positives` (or the answer) and `candidates`, the number N. Add the check
    of <think> with `gated`. Source: MM-R5 (arXiv:2506.12364) and its code, which cannot read a list
    of one.
    """

    needs = frozenset({"answer|meta.positives", "meta.candidates"})
    gold_columns = ("positives",)

    exponent: float = Field(3.0, gt=0)
    rank_weight: float = 1.0
    list_weight: float = 1.0
    clamp: bool = False
    """Keep the list term at 0 or above."""

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = {int(i) for i in (gold if isinstance(gold, list | tuple) else [gold])}
        total = prompt.meta.get("candidates")
        if not isinstance(total, int) or total <= 0:
            raise ValueError(f"the column candidates must be a number above 0, got {total!r}")
        match = _IDS.search(answer)
        if match is None:
            raise Unparsable("no list of whole numbers in the answer")
        order = [int(i) for i in match.group(1).split(",")]
        rank, listed = self.rank(order, right), self.listing(order, total)
        value = self.rank_weight * rank + self.list_weight * listed
        return Score(value, parts={"rank": rank, "list": listed})

    def rank(self, order: list[int], right: set[int]) -> float:
        """Discounted recall in [0, 1]; 0 without right ids."""
        place = {one: i for i, one in reversed(list(enumerate(order, start=1)))}
        found = sum(place[one] ** -self.exponent for one in right if one in place)
        best = sum(k**-self.exponent for k in range(1, len(right) + 1))
        return found / best if best else 0.0

    def listing(self, order: list[int], total: int) -> float:
        """Whether the list is as long as it should be, of ids that exist."""
        length = (total - abs(len(order) - total)) / total
        value = length * sum(1 <= one <= total for one in order) / len(order)
        return max(0.0, value) if self.clamp else value
