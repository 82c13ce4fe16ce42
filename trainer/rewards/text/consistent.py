"""Whether the choice is the one that the reasoning names."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from trainer.ops.parsing import Unparsable
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Consistent(AnswerReward):
    """1 if of all options the last `lines` lines before the answer's tag name only the chosen one,
    else -1; 0, `unparsable`, where no choice can be read.

    The columns `options` (texts) and `labels` (what an answer calls them; None: 1, 2, ...). The
    rule that stands in for the judge of R1-Reward's consistency reward (arXiv:2505.02835), whose
    values it has, where options are short phrases.
    """

    needs = frozenset({"meta.options"})
    gold_columns = ("options",)

    require_tag: bool = True
    lines: int = Field(3, gt=0)

    def gold(self, prompt: Prompt) -> Any:
        return prompt.meta.get("options")

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        options = [_plain(str(option)) for option in gold]
        labels = prompt.meta.get("labels") or [str(i) for i in range(1, len(options) + 1)]
        chosen = next((i for i, name in enumerate(labels) if str(name) == answer.strip()), None)
        if chosen is None:
            raise Unparsable(f"{answer.strip()[:20]!r} is none of {', '.join(map(str, labels))}")
        before = rollout.reply[: rollout.reply.rfind(f"<{self.tag}>")]
        said = f" {_plain(' '.join(before.strip().splitlines()[-self.lines :]))} "
        named = {i for i, option in enumerate(options) if f" {option} " in said}
        return 1.0 if named == {chosen} else -1.0


def _plain(text: str) -> str:
    """Lower-case words with one blank between them."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
