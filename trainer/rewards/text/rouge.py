"""Overlap of words with a reference text."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from trainer.ops.rouge import rouge_l, rouge_n
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Rouge(AnswerReward):
    """Mean of the F scores in `kinds`, on lower-case words of letters and digits without stemming;
    of several references the best. The first 20,000 words of an answer count.

    Sources: ROUGE, Lin 2004; the mean of 1, 2 and L as in Video-R1 and SophiaVL-R1
    (arXiv:2505.17018).
    """

    kinds: tuple[Literal["1", "2", "L"], ...] = Field(("1", "2", "L"), min_length=1)

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        given = words(answer)[:20_000]
        references = gold if isinstance(gold, list | tuple) else [gold]
        return max((self._mean(given, words(str(text))) for text in references), default=0.0)

    def _mean(self, given: list[str], right: list[str]) -> float:
        values = [
            rouge_l(given, right) if kind == "L" else rouge_n(given, right, int(kind))
            for kind in self.kinds
        ]
        return sum(values) / len(values)


def words(text: str) -> list[str]:
    """Lower-case words of letters and digits."""
    return re.findall(r"[^\W_]+", text.lower())
