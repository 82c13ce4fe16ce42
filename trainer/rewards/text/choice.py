"""Multiple choice."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainer.ops.text import choice_letter, tag_content
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class Choice(PointwiseReward):
    r"""1 if the chosen letter is the row's, else 0.

    The letter is read from the last `<answer>`, or from the whole reply if there is none, in many
    spellings: `B`, `(b)`, `**B.**`, `B. a cat`, `the answer is B`, `\boxed{\text{B}}`. No letter:
    0, `unparsable`. The row's answer is a letter in any of them. A row without answer does not
    apply; an answer that names no letter raises.
    """

    needs = frozenset({"answer"})

    letters: Annotated[str, Field(pattern=r"^[A-Za-z]{2,}$")] = "ABCD"
    tag: str = "answer"
    require_tag: bool = False
    """No letter counts outside `<answer>`."""

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        if prompt.answer is None:
            return Score(status=ScoreStatus.NOT_APPLICABLE, reason="the row has no answer")
        gold = choice_letter(str(prompt.answer), self.letters)
        if gold is None:
            raise ValueError(f"answer {prompt.answer!r} names none of the letters {self.letters}")
        tagged = tag_content(rollout.reply, self.tag)
        text = tagged if tagged is not None or self.require_tag else rollout.reply
        chosen = choice_letter(text, self.letters) if text else None
        if chosen is None:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason="no letter in the reply")
        return chosen == gold
