"""Noise-contrastive alignment (arXiv:2402.05369), for an implicit process-reward model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import RowLoss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class Nca(RowLoss):
    """l = -[log sigma(s_w) + 1/2 log sigma(-s_w) + 1/2 log sigma(-s_l)], the mean over pairs: the
    k-th right answer (label above 0.5) of a group with its k-th wrong one. Answers left over do
    not count.

    s = beta sum_t (log pi - log pi_ref), the row's return is the label. Unlike DPO it fixes the
    level of s, not only the difference. Form of arXiv:2412.01981.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})
    leaves_rows_out: ClassVar[bool] = True

    beta: float = Field(0.05, gt=0)
    """Scale of the reward that the log-ratio stands for."""

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        import torch

        from trainer.ops.implicit import opposites

        paired = torch.zeros(len(batch.mask), dtype=torch.bool)
        paired[opposites(batch.rewards.sum(-1), batch.group, batch.rollout).flatten()] = True
        return batch.with_(mask=batch.mask & paired[:, None])

    def of_rows(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import torch
        from torch.nn.functional import softplus

        from trainer.ops.implicit import row_rewards

        scores = row_rewards(evaluation.logprobs, batch.ref_logprobs, batch.mask, self.beta)
        right = batch.rewards.sum(-1) > 0.5
        # Twice, because a pair is two rows of the mean.
        return torch.where(right, 2 * softplus(-scores), 0.0) + softplus(scores), {}
