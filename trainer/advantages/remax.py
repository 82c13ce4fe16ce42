"""ReMax: the greedy answer's reward as baseline (arXiv 2310.10505)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Remax(Advantage):
    """REINFORCE against b, the return of the greedy answer to the same prompt (part `greedy`).

    `form: to_go` (verl): A[i, t] = sum over s >= t of r[i, s], minus b.
    `form: official`: A[i, t] = gamma^n clip(R_i - b, -clip, clip) + penalty[i, t], where n counts
    the actions from t to the end, t included, and the penalty is what modifiers took off this very
    action (KL), not summed.

    Needs `rollouts.agent: greedy_baseline`; a group of one will do. Rows whose greedy answer could
    not be scored get 0.
    """

    needs_baseline: ClassVar[bool] = True

    form: Literal["to_go", "official"] = "to_go"
    clip: float = Field(5.0, gt=0, allow_inf_nan=False)
    """Bound of |R - b|; `official` only."""
    gamma: float = Field(1.0, ge=0, le=1)
    """Discount per action; `official` only."""

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.process import split_rewards
        from trainer.ops.returns import actions_left, reward_to_go

        if "greedy" not in batch.parts:
            raise ValueError(
                "advantage: remax needs the part `greedy`, and this batch has none: set "
                "rollouts.agent: greedy_baseline"
            )
        baseline = batch.parts["greedy"].double()
        if self.form == "to_go":
            found = reward_to_go(batch.rewards, batch.mask) - baseline[:, None]
        else:
            process, outcome, penalty = split_rewards(batch)
            surplus = (outcome + process.sum(-1) - baseline).clamp(-self.clip, self.clip)
            found = surplus[:, None] * self.gamma ** actions_left(batch.mask) + penalty
        known = batch.mask & ~baseline.isnan()[:, None]
        return found.masked_fill(~known, 0.0).float()
