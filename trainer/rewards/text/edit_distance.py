"""How near a transcription is, by insertions, deletions and substitutions."""

from __future__ import annotations

import math
import unicodedata
from typing import Any, Literal

from pydantic import Field

from trainer.ops.detections import fenced
from trainer.ops.edit_distance import levenshtein
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout

Step = Literal["fence", "nfkc", "quotes", "strip", "space", "case"]
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2212", "''\"\"---")


class EditDistance(AnswerReward):
    """With p the answer, g the row's text and d their Levenshtein distance:

    ned 1 - d / max(|p|, |g|); cer 1 - d / max(|g|, 1); wer the same on words; exp_wer
    exp(-d / |g|) on words. cer and wer are clipped to [0, 1] unless `clip` is off. Both empty: 1.
    A list of accepted texts: the best. Sources: SophiaVL-R1 (arXiv:2505.17018) for exp_wer.
    """

    takes_empty = True

    kind: Literal["ned", "cer", "wer", "exp_wer"] = "ned"
    normalise: tuple[Step, ...] = ("strip", "space")
    """Done to both sides, in this order: drop a code fence, NFKC, plain quotes and dashes, strip,
    white space to one blank, lower case."""
    clip: bool = True
    bonus: float = Field(0.0, ge=0)
    """Added where both are equal."""
    longest: float = Field(4.0, gt=0)
    """An answer of more than this many times the row's length (and 100 characters) is worth 0:
    loops cost no time."""

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        accepted = gold if isinstance(gold, list | tuple) else [gold]
        return max((self._value(answer, str(text)) for text in accepted), default=0.0)

    def _value(self, answer: str, gold: str) -> float:
        given, right = self._normal(answer), self._normal(gold)
        if given == right:
            return 1.0 + self.bonus
        if len(given) > max(100.0, self.longest * len(right)):
            return 0.0
        if self.kind in ("wer", "exp_wer"):
            words = right.split()
            rate = levenshtein(given.split(), words) / max(len(words), 1)
            value = math.exp(-rate) if self.kind == "exp_wer" else 1 - rate
        else:
            most = max(len(given), len(right)) if self.kind == "ned" else max(len(right), 1)
            value = 1 - levenshtein(given, right) / most
        return min(max(value, 0.0), 1.0) if self.clip else value

    def _normal(self, text: str) -> str:
        for step in self.normalise:
            match step:
                case "fence":
                    text = fenced(text)
                case "nfkc":
                    text = unicodedata.normalize("NFKC", text)
                case "quotes":
                    text = text.translate(_QUOTES)
                case "strip":
                    text = text.strip()
                case "space":
                    text = " ".join(text.split())
                case "case":
                    text = text.lower()
        return text
