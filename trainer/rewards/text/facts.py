"""How many of a row's facts the reply states."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from trainer.ops.facts import listed_facts, share
from trainer.ops.parsing import LONGEST, tag_fields
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Facts(PointwiseReward):
    """v = sum_j b_j / (n + eps), b_j = 1 if the reply has the words of fact j side by side, in any
    case; `inside` reads only the last `<tag>` of that name, and without it v = 0, `unparsable`.

    The facts are the column `facts`: a list, or `<info1>...</info1><info2>...`. A row without any
    does not apply. The rule that stands in for the judge of Perception-R1 (arXiv:2506.07218) where
    facts are short phrases; `judge/checklist` asks a judge.
    """

    needs = frozenset({"meta.facts|meta.visual_key_info"})

    inside: str | None = None
    """A tag such as `think`; None: the whole reply."""
    eps: float = Field(1e-6, ge=0)

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        facts = listed_facts(prompt.meta)
        if not facts:
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason="the row has no facts")
        text = rollout.reply[-LONGEST:]
        if self.inside is not None:
            fields = tag_fields(text, self.inside)
            if not fields:
                reason = f"no <{self.inside}> in the reply"
                return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
            text = fields[-1].text
        said = f" {_plain(text)} "
        return share([float(f" {_plain(fact)} " in said) for fact in facts], self.eps)


def _plain(text: Any) -> str:
    """Lower-case words with one blank between them."""
    return " ".join(re.findall(r"[^\W_]+", str(text).lower()))
