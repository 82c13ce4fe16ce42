"""Changes between two pictures as (object, attribute, value) (STAR-R1)."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from trainer.ops.parsing import Unparsable
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout, Score

_TRIPLE = re.compile(
    r"[(\[]\s*[\"']?(\d{1,6})[\"']?\s*"
    r",\s*[\"']?([A-Za-z_ ]{1,40}?)[\"']?\s*"
    r",\s*[\"']?([\w \-.]{1,40}?)[\"']?\s*[)\]]"
)

Triple = tuple[int, str, str]


class Triples(AnswerReward):
    """For each predicted triple `full` if the row has it, `attribute` if object and attribute are
    right, `index` if the object is; a right triple pays in full once. Less `wrong` per triple that
    hits nothing, `excess` per triple said before and per other triple beyond the row's number,
    `inaction` for no triple where the row has some.

    An answer without triples (`[]`, `none`) is an empty list; anything else without any is
    `unparsable`, at the price of an empty one. Parts: positive, penalty. After STAR-R1
    (arXiv:2505.15804): the positive levels are the paper's, the penalties are ours.
    """

    full: float = 5.0
    attribute: float = 1.5
    index: float = 0.5
    wrong: float = Field(1.0, ge=0)
    excess: float = Field(1.0, ge=0)
    inaction: float = Field(1.0, ge=0)
    per_gold: bool = False
    """Divide by the number of right triples."""
    once: bool = False
    """Each of the row's triples pays once at any level, the best ones first. Off, as in the paper:
    listing every value of a right attribute pays `attribute` for each."""

    synonyms: dict[str, str] = Field(default_factory=dict)
    """Lower-case values of one meaning, `{grey: gray}`, on both sides."""

    takes_empty = True

    @property
    def floor(self) -> float:
        return -self.inaction

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = self._same(parse(gold) if isinstance(gold, str) else [_triple(g) for g in gold])
        given = self._same(parse(answer))
        if not given and answer.strip().lower().strip("[](). ") not in ("", "none"):
            raise Unparsable("no triple (index, attribute, value) in the answer")
        positive, penalty = self.value(given, right)
        total = positive - penalty
        scale = max(len(right), 1) if self.per_gold else 1
        return Score(total / scale, parts={"positive": positive, "penalty": penalty})

    def _same(self, triples: list[Triple]) -> list[Triple]:
        return [(i, name, self.synonyms.get(value, value)) for i, name, value in triples]

    def value(self, given: list[Triple], right: list[Triple]) -> tuple[float, float]:
        """(what is earned, what is charged)."""
        distinct = list(dict.fromkeys(given))
        levels = [(self.full, 3), (self.attribute, 2), (self.index, 1)]
        free, rest, earned = list(right), list(distinct), 0.0
        for pay, shared in levels:
            against = free if self.once or shared == 3 else right
            for triple in list(rest):
                hit = next((other for other in against if triple[:shared] == other[:shared]), None)
                if hit is not None:
                    earned += pay
                    rest.remove(triple)
                    if against is free:
                        free.remove(hit)
        missed = sum(not any(triple[0] == other[0] for other in right) for triple in rest)
        excess = len(given) - len(distinct) + max(0, len(distinct) - len(right))
        penalty = self.wrong * missed + self.excess * excess
        return earned, penalty + (self.inaction if right and not given else 0.0)


def parse(text: str) -> list[Triple]:
    """Every `(index, attribute, value)` of a text, at most 1000."""
    found = _TRIPLE.findall(text)[:1000]
    return [_triple(item) for item in found]


def _triple(item: Any) -> Triple:
    try:
        index, attribute, value = item
        return int(index), str(attribute).strip().lower(), str(value).strip().lower()
    except (TypeError, ValueError):
        raise ValueError(f"{item!r} is no triple (index, attribute, value)") from None
