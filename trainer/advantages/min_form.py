"""Credit by the worst step instead of the sum of steps (PURE, arXiv 2504.15275)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class MinForm(Advantage):
    """A[i, t] = sum over s >= t of the rewards of row i, made of these:

    - at the end of step k: w_k r_k - baseline, with w_k = exp(-r_k / T) / sum_j exp(-r_j / T) over
      the steps of the row, so that the row's sum is near its worst step's score;
    - at the last action: `outcome_coef` times (v_i - mean of the other rows' v), v the outcome;
    - on every action: what modifiers took off the rewards (KL).

    With O_j = sum_k w_k r_k of row j and l_j its actions, `baseline: token` takes
    sum_{j != i} O_j / sum_{j != i} l_j for each action of the step, `baseline: step` the mean over
    j != i of O_j / (steps of j). r is meant to lie in [-1, 1]. Rows that have no sibling give
    exactly 0. A row without steps has O = 0; in `baseline: step` it does not count.
    """

    temperature: float = Field(0.1, gt=0, allow_inf_nan=False)
    """T. Towards 0 the sum becomes the minimum."""
    weighting: Literal["softmin", "uniform", "sum"] = "softmin"
    """`uniform`: w = 1 / steps of the row (the mean form that PURE compares with). `sum`: w = 1, so
    that every further step above 0 earns more: the form that gets hacked."""
    baseline: Literal["token", "step", "none"] = "token"
    outcome_coef: float = Field(1.0, ge=0, allow_inf_nan=False)
    """0: step scores alone (PURE's mode PRM)."""
    outcome_part: str | None = None
    """The outcome is this part of the score, not its value; rows where it is None (prompts without
    an answer) have no such term."""
    mask_step_ends: bool = True
    """0 on the last token of a step, the separator, unless it is the row's last action."""

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_count
        from trainer.ops.process import softmin_weights, split_rewards, step_ends
        from trainer.ops.returns import actions_left, at_last_action, suffix_sum

        process, outcome, penalty = split_rewards(batch)
        ends = step_ends(batch)
        scores = process.masked_fill(~ends, 0.0)
        if self.weighting == "softmin":
            weights = softmin_weights(scores, ends, self.temperature)
        elif self.weighting == "sum":
            weights = ends.double()
        else:
            weights = ends.double() / ends.double().sum(-1, keepdim=True).clamp(min=1)
        rewards = weights * scores
        rewards = rewards - self._baseline(rewards.sum(-1), ends, batch)
        rewards = rewards + at_last_action(self._outcome(outcome, batch), batch.mask) + penalty
        found = suffix_sum(rewards)
        if self.mask_step_ends:
            found = found.masked_fill(ends & (actions_left(batch.mask) > 1), 0.0)
        alone = group_count(batch.group) < 2
        return found.masked_fill(~batch.mask | alone[:, None], 0.0).float()

    def _baseline(self, totals: Tensor, ends: Tensor, batch: Batch) -> Tensor:
        """[B, T], at the step ends."""
        from trainer.ops.process import others_sum, step_lengths

        if self.baseline == "none":
            return totals.new_zeros(ends.shape)
        if self.baseline == "token":
            length = batch.mask.double().sum(-1)
            each = others_sum(totals, batch.group) / others_sum(length, batch.group).clamp(min=1)
            return each[:, None] * step_lengths(ends, batch.mask)
        steps = ends.double().sum(-1)
        siblings = others_sum((steps > 0).double(), batch.group)
        mean = others_sum(totals / steps.clamp(min=1), batch.group) / siblings.clamp(min=1)
        return mean[:, None] * ends

    def _outcome(self, outcome: Tensor, batch: Batch) -> Tensor:
        """[B]: v minus the mean of the other rows that have one; 0 where there is none."""
        from trainer.ops.process import others_sum

        if self.outcome_part is not None:
            if self.outcome_part not in batch.parts:
                raise ValueError(
                    f"advantage.outcome_part: no part {self.outcome_part!r} in the scores; they "
                    f"have: {', '.join(sorted(batch.parts)) or 'none'}"
                )
            outcome = batch.parts[self.outcome_part].double()
        known = ~outcome.isnan()
        value = outcome.masked_fill(~known, 0.0)
        siblings = others_sum(known.double(), batch.group)
        surplus = value - others_sum(value, batch.group) / siblings.clamp(min=1)
        return self.outcome_coef * surplus.masked_fill(~known | (siblings == 0), 0.0)
