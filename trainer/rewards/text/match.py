"""Yes or no, or one of the options (Mixed-R1's matching reward)."""

from __future__ import annotations

import re
from typing import Any

from trainer.ops.parsing import Unparsable
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout

_LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z'])")
_WORD = re.compile(r"[a-z]+")


class Match(AnswerReward):
    """1 if the answer says what the row's does, else 0.

    With n(.) = lower case, without white space, brackets and quotes around it and a final full
    stop: yes or no in the row is compared with the first word of n(answer); a letter with the first
    letter that stands alone, or, without any, the text of the option with n(answer); anything else
    word for word. Options are the column `options`, a list in the order of the letters. Nothing
    comparable in the answer: 0, `unparsable`. After Mixed-R1 (arXiv:2505.24164): the abstract and
    summaries were read, the rules of comparison are ours.
    """

    options_column: str = "options"
    words: bool = True
    """Compare yes / no by the first word; off: the whole answer."""

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right, given = plain(str(gold)), plain(answer)
        if self.words and right in ("yes", "no"):
            first = _WORD.search(given)
            if first is None:
                raise Unparsable("no word in the answer")
            return first.group() == right
        if len(right) == 1 and right.isalpha():
            letter = _LETTER.search(answer)
            if letter:
                return letter.group().lower() == right
            option = self._option(right, prompt)
            if option is None:
                raise Unparsable("no letter in the answer")
            return given == option
        return given == right

    def _option(self, letter: str, prompt: Prompt) -> str | None:
        options = prompt.meta.get(self.options_column)
        place = ord(letter) - ord("a")
        if not isinstance(options, list | tuple) or not 0 <= place < len(options):
            return None
        return plain(str(options[place]))


def plain(text: str) -> str:
    """Lower case, without white space, brackets, quotes around it and a final full stop."""
    return text.lower().strip().rstrip(".").strip("()[]{}\"'` \t\r\n").rstrip(".")
