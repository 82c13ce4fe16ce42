"""A count that the objects which the reply points at add up to."""

from __future__ import annotations

from trainer.ops.parsing import LONGEST, Unparsable, answer_field
from trainer.ops.points import parse_points
from trainer.ops.text import last_integer
from trainer.rewards.base import PointwiseReward, Verdict
from trainer.types import Prompt, Rollout, Score, ScoreStatus


class ListedCount(PointwiseReward):
    """1 if the last `<list_tag>` lists as many boxes or points as the number in the last `<tag>`
    says, else 0; what is missing or cannot be read: 0, `unparsable`.

    For grounded counting: beside the F1 of the list (`vision/detection_set`, or
    `vision/point_in_box`
    with `kind: f1`, of `tag: list`) it stops a list that disagrees with the number.
    """

    tag: str = "answer"
    list_tag: str = "list"
    words: bool = True
    """Read `zero` to `twenty` as numbers."""

    def grade(self, rollout: Rollout, prompt: Prompt) -> Verdict:
        reply = rollout.reply[-LONGEST:]
        try:
            number = last_integer(
                answer_field(reply, self.tag, require_tag=True).text, words=self.words
            )
            if number is None:
                raise Unparsable("no count in the reply")
            listed = answer_field(reply, self.list_tag, require_tag=True, empty=True).text
        except Unparsable as error:
            return Score(0.0, status=ScoreStatus.UNPARSABLE, reason=str(error))
        return number == len(parse_points(listed))
