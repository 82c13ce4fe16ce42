"""Whether the reply matches a pattern."""

from __future__ import annotations

import re
from typing import Literal

from trainer.rewards.base import Pattern, PointwiseReward, Verdict
from trainer.types import Prompt, Rollout


class Regex(PointwiseReward):
    """1 if the pattern matches, else 0; with `absent` the other way round.

    A pattern that backtracks for ever is killed at the deadline, as a fault.
    """

    pattern: Pattern
    match: Literal["anywhere", "whole"] = "anywhere"
    """`whole`: all of the reply, white space around it aside."""
    ignore_case: bool = False
    dotall: bool = True
    """`.` matches line breaks too."""
    absent: bool = False
    """Reward replies that do not match: forbidden words."""

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        flags = (re.IGNORECASE if self.ignore_case else 0) | (re.DOTALL if self.dotall else 0)
        find = re.search if self.match == "anywhere" else re.fullmatch
        return (find(self.pattern, rollout.reply.strip(), flags) is None) == self.absent
