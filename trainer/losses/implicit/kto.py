"""KTO (arXiv:2402.01306) on outcome labels, for an implicit process-reward model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import RowLoss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class Kto(RowLoss):
    """Right answers (label above 0.5): weight (1 - sigma(beta (D - KL_wrong))); wrong ones: weight
    (1 - sigma(beta (KL_right - D))); the mean over rows.

    D = sum_t (log pi - log pi_ref) of the row. KL_right and KL_wrong are the means of D over the
    right and the wrong rows of the minibatch, over all processes, as they were before it, at least
    0, without gradient; 0 where there are no such rows. Form of arXiv:2412.01981 for batches with
    as many right as wrong answers. KTO's own estimate, from answers to other prompts, would cost a
    second pass.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs", "current_logprobs"})

    beta: float = Field(0.05, gt=0)
    """Scale of the reward that the log-ratio stands for."""
    right_weight: float = Field(1.0, ge=0)
    """KTO's weight of desirable answers."""
    wrong_weight: float = Field(1.0, ge=0)
    """KTO's weight of undesirable answers."""

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        import torch

        from trainer.ops.implicit import row_rewards

        now = batch.extra["current_logprobs"]
        distance = row_rewards(now, batch.ref_logprobs, batch.mask, 1.0).double()
        right, filled = batch.rewards.sum(-1) > 0.5, batch.mask.any(-1)
        sides = torch.stack([right & filled, ~right & filled]).double()  # [2, B]
        total = across.sum(torch.cat([sides @ distance, sides.sum(-1)]))
        level = (total[:2] / total[2:].clamp(min=1)).clamp(min=0)
        facing = torch.where(right, level[1], level[0]).to(now.dtype)
        return batch.with_(extra=batch.extra | {"level": facing[:, None] * batch.mask})

    def of_rows(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from trainer.ops.implicit import row_rewards

        distance = row_rewards(evaluation.logprobs, batch.ref_logprobs, batch.mask, 1.0)
        level = batch.extra["level"].to(distance.dtype).amax(-1)
        ahead = self.beta * (distance - level)
        right = batch.rewards.sum(-1) > 0.5
        wanted = self.right_weight * torch.sigmoid(-ahead)
        return torch.where(right, wanted, self.wrong_weight * torch.sigmoid(ahead)), {}
