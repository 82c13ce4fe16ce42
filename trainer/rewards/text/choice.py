"""Multiple choice."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from trainer.ops.parsing import Unparsable
from trainer.ops.text import choice_letter
from trainer.rewards.base import AnswerReward, Verdict
from trainer.types import Prompt, Rollout


class Choice(AnswerReward):
    r"""1 if the chosen letter is the row's, else 0.

    The letter is read from the last `<answer>`, or from the whole reply if there is none, in many
    spellings: `B`, `(b)`, `**B.**`, `B. a cat`, `the answer is B`, `\boxed{\text{B}}`. No letter:
    0, `unparsable`. The row's answer is a letter in any of them. A row without answer does not
    apply; an answer that names no letter raises.
    """

    letters: Annotated[str, Field(pattern=r"^[A-Za-z]{2,}$")] = "ABCD"

    def compare(self, answer: str, gold: Any, rollout: Rollout, prompt: Prompt) -> Verdict:
        right = choice_letter(str(gold), self.letters)
        if right is None:
            raise ValueError(f"answer {gold!r} names none of the letters {self.letters}")
        chosen = choice_letter(answer, self.letters)
        if chosen is None:
            raise Unparsable("no letter in the reply")
        if self.strict and len(answer) > 1:
            raise Unparsable("the answer is not one letter and nothing else")
        return chosen == right
