"""Multiple choice with one or more right letters."""

from __future__ import annotations

import re
from typing import Any

from trainer.ops.parsing import Unparsable
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout

_LETTER = re.compile(r"(?<![A-Za-z0-9_])[A-Ea-e](?![A-Za-z0-9_'])")


class Letters(AnswerReward):
    """1 if the letters A to E that stand alone in the answer are the row's, each counted once, else
    0; none: 0, `unparsable`.

    `ordered` wants them in the row's order too, as Curr-ReFT's code does (arXiv:2503.07065).
    """

    ordered: bool = False

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = chosen(",".join(gold) if isinstance(gold, list | tuple) else str(gold))
        if not right:
            raise ValueError(f"answer {gold!r} names no letter A to E")
        given = chosen(answer)
        if not given:
            raise Unparsable("no letter in the answer")
        return given == right if self.ordered else set(given) == set(right)


def chosen(text: str) -> list[str]:
    """Letters in order, each once."""
    return list(dict.fromkeys(letter.upper() for letter in _LETTER.findall(text)))
