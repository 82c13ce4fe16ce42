"""The answer, word for word."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import model_validator

from trainer.ops.parsing import unwrapped
from trainer.ops.text import normalise, tag_content
from trainer.rewards.base import Pattern, PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Exact(PointwiseReward):
    """1 if the extracted answer equals the row's answer (or one item of it, where it is a list)
    up to the differences that are ignored, else 0. An answer that the row has in `<answer>` is
    taken out of it.

    Nothing to extract: 0, `unparsable`. A row without answer does not apply.
    """

    needs = frozenset({"answer"})

    extract: Literal["tag", "all", "regex"] = "tag"
    """`tag`: the last `<answer>...</answer>`, `all`: the whole reply, `regex`: last match of
    `pattern` (its group 1 if it has groups)."""
    tag: str = "answer"
    pattern: Pattern | None = None
    ignore_case: bool = True
    ignore_space: bool = True
    """Runs of white space count as one blank."""
    ignore_punctuation: bool = False
    strip: bool = True
    """Off: with `extract: all` white space around the reply is a difference too, as in
    No-Thinking-RL (arXiv:2503.16188)."""

    @model_validator(mode="after")
    def _pattern_belongs(self) -> Exact:
        if (self.extract == "regex") != (self.pattern is not None):
            raise ValueError("extract: regex and pattern go together: give both or neither")
        if not self.strip and (self.extract != "all" or self.ignore_space):
            raise ValueError("strip: false goes with extract: all and ignore_space: false only")
        return self

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        if prompt.answer is None:
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason="the row has no answer")
        found = self._extract(rollout.reply)
        if found is None:
            reason = f"no <{self.tag}> in the reply" if self.extract == "tag" else "no match"
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=reason)
        accepted = prompt.answer if isinstance(prompt.answer, list | tuple) else [prompt.answer]
        if not self.strip and found != found.strip():
            return 0.0
        return self._normal(found) in {self._normal(unwrapped(str(a))) for a in accepted}

    def _extract(self, reply: str) -> str | None:
        if self.extract == "tag":
            return tag_content(reply, self.tag)
        if self.extract == "all":
            return reply
        matches = list(re.finditer(self.pattern or "", reply))
        return matches[-1].group(1 if matches[-1].re.groups else 0) if matches else None

    def _normal(self, text: str) -> str:
        return normalise(
            text,
            case=self.ignore_case,
            space=self.ignore_space,
            punctuation=self.ignore_punctuation,
        )
