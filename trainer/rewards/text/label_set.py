"""Several names at once."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class LabelSet(AnswerReward):
    """With P and G the sets of names of answer and row: jaccard |P n G| / |P u G|, f1
    2 |P n G| / (|P| + |G|), recall |P n G| / |G|; both empty: `both_empty`.

    Names are separated by commas, semicolons or lines, in any case, without white space, quotes and
    brackets around them. The row has a list or such a text. Source: Curr-ReFT (arXiv:2503.07065).
    """

    kind: Literal["jaccard", "f1", "recall"] = "jaccard"
    both_empty: float = Field(0.0, ge=0, le=1)

    takes_empty = True

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = names(", ".join(map(str, gold)) if isinstance(gold, list | tuple) else str(gold))
        given = names(answer)
        if not given and not right:
            return self.both_empty
        shared = len(given & right)
        if self.kind == "jaccard":
            return shared / len(given | right)
        if self.kind == "recall":
            return shared / len(right) if right else 0.0
        return 2 * shared / (len(given) + len(right))


def names(text: str) -> set[str]:
    """The set of names in a text."""
    parts = (part.strip(" \t\r\"'`[](){}.").lower() for part in re.split(r"[,;\n]", text))
    return {part for part in parts if part}
