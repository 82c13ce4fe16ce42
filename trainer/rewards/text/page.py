"""How near a transcribed page is, block by block."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from trainer.ops.assignment import best_pairs
from trainer.ops.detections import fenced
from trainer.ops.edit_distance import similarity
from trainer.ops.parsing import Unparsable
from trainer.ops.text import normalise
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout, Score

_GAP = re.compile(r"\n\s*\n")


class Page(AnswerReward):
    """(1 - w) blocks + w order. Blocks of both sides, parted by empty lines, are matched one to one
    by their similarity s = 1 - Levenshtein / length of the longer: blocks = sum of s over the
    larger number of blocks; order = the same similarity of the matched blocks' places, as they come
    in the answer and as they should.

    Both empty: 1; one of them: 0. More than `most` blocks: 0, `unparsable`. Parts: blocks, order.
    Our composition of the usual edit-distance measures of document parsing.
    """

    takes_empty = True

    order_weight: float = Field(0.2, ge=0, le=1)
    """w."""
    ignore_case: bool = False
    most: int = Field(200, gt=0)

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        given, right = self._blocks(fenced(answer)), self._blocks(str(gold))
        if len(given) > self.most:
            raise Unparsable(f"{len(given)} blocks, more than {self.most}")
        if not given or not right:
            return float(not given and not right)
        table = [[similarity(a, b) for b in right] for a in given]
        pairs = sorted(best_pairs(table))
        blocks = sum(table[a][b] for a, b in pairs) / max(len(given), len(right))
        places = [b for _, b in pairs]
        order = similarity(places, sorted(places))
        value = (1 - self.order_weight) * blocks + self.order_weight * order
        return Score(value, parts={"blocks": blocks, "order": order})

    def _blocks(self, text: str) -> list[str]:
        found = (normalise(block, case=self.ignore_case) for block in _GAP.split(text))
        return [block for block in found if block]
