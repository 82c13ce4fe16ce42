"""A run that learns nothing must not look like one that does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainer.buffer import histogram
from trainer.errors import NoLearningSignal
from trainer.types import Group


class SignalWatch:
    """Counts steps in a row in which every advantage was zero."""

    def __init__(self, patience: int):
        self.patience = patience
        self.silent = 0
        self.reasons: Counter[str] = Counter()

    def observe(self, groups: Sequence[Group], learned: bool) -> None:
        """`learned`: some advantage of the step differed from zero. Raises `NoLearningSignal` with
        the reasons of the silent steps once `patience` (0: never) is reached."""
        if learned:
            self.silent = 0
            self.reasons.clear()
            return
        self.silent += 1
        for group in groups:
            self.reasons[_why(group)] += 1
        if self.patience and self.silent >= self.patience:
            raise NoLearningSignal(
                f"no advantage differed from zero for {self.silent} steps, so no weight moved. "
                f"Groups of these steps: {histogram(self.reasons)}. Check the reward with "
                "`cohort score`, make the prompts easier or harder, raise rollouts.group_size or "
                "the temperature; learner.no_signal_steps: 0 switches this check off"
            )

    def state_dict(self) -> dict[str, object]:
        return {"silent": self.silent, "reasons": dict(self.reasons)}

    def load_state_dict(self, state: dict) -> None:
        self.silent, self.reasons = state["silent"], Counter(state["reasons"])


def _why(group: Group) -> str:
    scores = [r.score for r in group.rollouts if r.score is not None]
    values = {score.value for score in scores if score.value is not None}
    if not values:
        statuses = Counter(score.status.value for score in scores)
        return f"nothing scored ({histogram(statuses)})"
    if len(values) == 1:
        return f"every reward {values.pop():g}"
    return "rewards differ, advantages do not"
