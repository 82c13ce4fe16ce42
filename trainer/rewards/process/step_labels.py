"""Labels of the data for each step of a recorded answer: what a process reward model is taught."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from trainer.errors import DataError
from trainer.ops.steps import Splitter, policy_spans
from trainer.rewards.base import Reward, RewardContext
from trainer.types import Group, Rollout, Score

if TYPE_CHECKING:
    from trainer.context import Context


class StepLabels(Reward):
    """The label of step k, from the list in a data column, as a token reward at the step's end
    (`Score.tokens`, `Score.steps`); the outcome is 0.

    For stages with `loss: step_bce`, after an agent that replays answers. Steps are those that the
    agent recorded (`replay_steps`), else those of `splitter`. A label of None leaves its step out.
    Raises DataError, with the row, for a missing column, another number of labels than of steps,
    or a label that is no number and not in `values`.
    """

    column: str = Field("labels", min_length=1)
    """A list with one label per step: numbers, true / false, or keys of `values`."""
    values: Mapping[str, float | None] = {}
    """Number for each label of other kinds, by its text: `{"+": 1, "-": 0}`; PRM800K's ratings:
    `{"1": 1, "0": 1, "-1": 0}`."""
    splitter: Splitter = Splitter()
    """Where steps end, if the agent did not record it."""
    until_first_error: bool = False
    """Leaves out the steps after the first label of 0: what comes after a mistake is seldom
    labelled well."""

    _decode: Any = PrivateAttr(None)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"meta.{self.column}"})

    @asynccontextmanager
    async def open(self, context: Context) -> AsyncIterator[None]:
        self._decode = context.renderer.decode
        try:
            yield
        finally:
            self._decode = None

    async def score(self, group: Group, ctx: RewardContext) -> list[Score]:
        return [self._labelled(group, rollout) for rollout in group.rollouts]

    def _labelled(self, group: Group, rollout: Rollout) -> Score:
        prompt = group.prompt
        where = f"{prompt.origin or f'prompt {prompt.id!r}'}: column {self.column!r}"
        labels = prompt.meta.get(self.column)
        if not isinstance(labels, list | tuple):
            raise DataError(
                f"{where} holds {labels!r}, it must be a list with one label per step "
                f"(reward.column); columns here: {', '.join(sorted(prompt.meta))}"
            )
        ends = self._ends(rollout)
        if len(ends) != len(labels):
            how = (
                "rollouts.agent played"
                if "step_ends" in rollout.meta
                else f"reward.splitter (by: {self.splitter.by}) cuts the answer into"
            )
            raise DataError(
                f"{where} has {len(labels)} labels, but {how} {len(ends)} steps; mend the row, or "
                "say with reward.splitter where steps end"
            )
        numbers = [self._number(label, f"{where}, label {k}") for k, label in enumerate(labels)]
        tokens: dict[int, list[float]] = {}
        steps: dict[int, list[int]] = {}
        for (span, end), number in zip(ends, numbers, strict=True):
            if number is None:
                continue
            row = tokens.setdefault(span, [0.0] * len(rollout.spans[span].tokens))
            row[end] = number
            steps.setdefault(span, []).append(end)
            if number == 0 and self.until_first_error:
                break
        return Score(value=0.0, tokens=tokens, steps=steps)

    def _ends(self, rollout: Rollout) -> list[tuple[int, int]]:
        """(span, last token of the step)."""
        found = []
        for span in policy_spans(rollout):
            ends = rollout.meta.get("step_ends")
            if ends is None:
                cut = self.splitter.steps(rollout.spans[span].tokens, self._decode)
                ends = [step.end for step in cut]
            found += [(span, end) for end in ends]
        return found

    def _number(self, label: Any, where: str) -> float | None:
        if label is None:
            return None
        if str(label) in self.values:
            return self.values[str(label)]
        number = float(label) if isinstance(label, int | float) else None  # bool is an int
        if number is None or not 0 <= number <= 1:
            raise DataError(
                f"{where} is {label!r}: a label is a number from 0 (wrong) to 1 (right), true, "
                f"false or null; translate others with reward.values: {{{str(label)!r}: 0}}"
            )
        return number
