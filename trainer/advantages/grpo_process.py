"""Process supervision with GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class GrpoProcess(Advantage):
    """A[i, t] = sum over the steps of row i that end at t or later of (s - mean) / (std + eps).

    s are the scores at step ends (`Score.steps`, see the rewards `process/...`); mean and std
    (ddof 1) are over all steps of all rows of the group together, a step that rows share counting
    once. Actions after the last step get 0. Equal scores, and a group with one step, give exactly
    0. Rewards that a modifier changed are refused: put a KL term into the loss.
    """

    eps: float = Field(0.0, ge=0)
    """Added to the standard deviations."""
    outcome_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Adds this times the advantage of `grpo` for the outcome (`Score.value`) on every action. 0:
    the outcome does not enter. 1 in TP-GRPO."""

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.process import refuse_penalties, split_rewards, standard_scores, step_ends
        from trainer.ops.returns import suffix_sum

        refuse_penalties(batch, "grpo_process")
        process, outcome, _ = split_rewards(batch)
        ends = step_ends(batch)
        row = ends.nonzero()[:, 0]
        pooled = process.new_zeros(process.shape)
        pooled[ends] = standard_scores(
            process[ends], batch.group[row], batch.weight[ends], self.eps
        )
        found = suffix_sum(pooled)
        if self.outcome_weight:
            alike = batch.weight.new_ones(len(outcome))
            own = standard_scores(outcome, batch.group, alike, self.eps)
            found = found + self.outcome_weight * own[:, None]
        return (found * batch.mask).float()
