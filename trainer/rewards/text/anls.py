"""DocVQA's soft match of short texts."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from trainer.ops.edit_distance import similarity
from trainer.ops.text import normalise
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Anls(AnswerReward):
    """S = max over the accepted answers of 1 - Levenshtein / length of the longer; S if it reaches
    `threshold`, else 0. Stripped, any case, runs of white space as one blank.

    The row's `answer` is a text or a list. S of exactly 0.5 stays, as in the evaluation script; the
    paper's text drops it. Source: ST-VQA
    (arXiv:1905.13648), DocVQA (arXiv:2007.00398).
    """

    takes_empty = True

    threshold: float = Field(0.5, ge=0, le=1)

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        accepted = gold if isinstance(gold, list | tuple) else [gold]
        given = normalise(answer)
        best = max((similarity(given, normalise(str(text))) for text in accepted), default=0.0)
        return best if best >= self.threshold else 0.0
