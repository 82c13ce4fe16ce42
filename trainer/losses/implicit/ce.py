"""Cross-entropy on outcome labels: how an implicit process-reward model learns (PRIME)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import RowLoss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Ce(RowLoss):
    """l_i = -[o_i log sigma(s_i) + (1 - o_i) log sigma(-s_i)], the mean over rows, with
    s_i = beta sum_t (log pi - log pi_ref) over the actions and o_i the row's return.

    o_i in 0..1; in between it is a soft label. Unpaired: a group of one will do. Sources:
    arXiv:2412.01981, arXiv:2502.01456.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})

    beta: float = Field(0.05, gt=0)
    """Scale of the reward that the log-ratio stands for."""

    def of_rows(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from torch.nn.functional import softplus

        from trainer.ops.implicit import row_rewards

        scores = row_rewards(evaluation.logprobs, batch.ref_logprobs, batch.mask, self.beta)
        labels = batch.rewards.to(scores.dtype).sum(-1)
        return softplus(scores) - labels * scores, {}
