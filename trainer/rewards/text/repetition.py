"""A penalty for saying the same again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.ops.detections import parse_detections
from trainer.ops.parsing import LONGEST, Unparsable
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout


class Repetition(PointwiseReward):
    """-penalty * (1 - distinct / all) over the n-grams of lower-case words; 0 for a reply of fewer
    than `n` words.

    `items: boxes` takes the items of a detection list instead, box and label as one, where the
    answer is one. The last 200,000 characters are read. Sources: VLM-R1 (arXiv:2504.07615; n 6,
    penalty 1), Perception-R1 (arXiv:2506.07218; n 20, penalty 2).
    """

    n: int = Field(6, gt=0)
    penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    items: Literal["words", "boxes"] = "words"

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        text = rollout.reply[-LONGEST:]
        grams: list[object] = []
        if self.items == "boxes":
            try:
                grams = [(item.box, item.label) for item in parse_detections(text)]
            except Unparsable:
                grams = []
        if not grams:
            words = text.lower().split()
            grams = [tuple(words[i : i + self.n]) for i in range(len(words) - self.n + 1)]
        return -self.penalty * (1 - len(set(grams)) / len(grams)) if grams else 0.0
