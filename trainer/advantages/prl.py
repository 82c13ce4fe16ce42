"""After process reward learning (PRL): step credit from one outcome and the log-ratio to the
reference policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Prl(Advantage):
    """A[i, t] = q_h - baseline for the actions t of step h, q_h = R_i - coef sum_{j >= h} d_j.

    d_j is the sum of log pi - log pi_ref over the actions of step j, nothing differentiated; log
    pi is `old_logprobs` where the batch has it, else the engine's. It stands in for a KL term, so
    use neither in the loss nor in the rewards. With pi = pi_ref every q_h is R_i.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})

    coef: float = Field(0.005, ge=0, allow_inf_nan=False)
    """1 / eta. Sums over hundreds of tokens dwarf R if it is large."""
    step_length: int | None = Field(256, gt=0)
    """Actions per step, the last one shorter; None: the steps that the reward marked."""
    baseline: Literal["outcome", "step", "none"] = "outcome"
    """`outcome`: the group's mean of R, exactly 0 for equal R; a group of one keeps the KL term
    alone. `step`: the group's mean of q_h over the rows that have a step h."""

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_centred

        returns = batch.rewards.double().sum(-1)
        step, penalty = self._steps(batch), self._penalty(batch)
        if self.baseline == "outcome":
            returns = group_centred(returns, batch.group)
        credit = (returns[:, None] + penalty) * batch.mask
        if self.baseline == "step":
            credit = self._step_centred(credit, step, batch)
        return (credit * batch.mask).float()

    def _steps(self, batch: Batch) -> Tensor:
        """i[B, T]: the step of each position, from 0."""
        from trainer.ops.process import step_ends, step_number

        if self.step_length is None:
            return step_number(step_ends(batch))
        return (batch.mask.long().cumsum(-1) - 1).clamp(min=0) // self.step_length

    def _penalty(self, batch: Batch) -> Tensor:
        """[B, T]: -coef times the log-ratio of the position's step and all later ones."""
        from trainer.ops.returns import suffix_sum

        sampled = batch.sampled_logprobs if batch.old_logprobs is None else batch.old_logprobs
        ratio = sampled.double() - cast("Tensor", batch.ref_logprobs).double()
        step = self._steps(batch)
        by_step = ratio.new_zeros(len(step), int(step.max()) + 1)
        by_step.scatter_add_(1, step, ratio.masked_fill(~batch.mask, 0.0))
        return -self.coef * suffix_sum(by_step).gather(1, step)

    @staticmethod
    def _step_centred(credit: Tensor, step: Tensor, batch: Batch) -> Tensor:
        """Minus the group's mean of each step; every row counts once per step."""
        import torch

        from trainer.ops.masked import group_centred

        by_step = credit.new_zeros(len(step), int(step.max()) + 1)
        there = torch.zeros_like(by_step, dtype=torch.bool)
        row = batch.mask.nonzero()[:, 0]
        by_step[row, step[batch.mask]] = credit[batch.mask]
        there[row, step[batch.mask]] = True
        for h in range(by_step.shape[1]):
            rows = there[:, h]
            if rows.any():
                by_step[rows, h] = group_centred(by_step[rows, h], batch.group[rows])
        return by_step.gather(1, step)
