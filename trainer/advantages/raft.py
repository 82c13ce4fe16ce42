"""RAFT (arXiv 2304.06767) and the positives-only form of RAFT++ (arXiv 2504.11343)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Raft(Advantage):
    """Trains on good answers only.

    `keep: positive`: A[i, t] = max(R_i, 0), with `loss: ppo_clip` RAFT++, with rewards of +1/-1.
    `keep: best`: A = 1 on the row of highest return of each group, the first of equals, else 0;
    with `loss: nll` the rejection sampling of RAFT, whatever the sign of R.

    Rejected actions stay in the loss's denominator, so few good answers mean a small step.
    """

    keep: Literal["positive", "best"] = "positive"
    renormalise: bool = False
    """Multiplies by all actions / kept actions of the step, so that a `token_mean` loss averages
    over kept actions. Exact with one update per batch."""

    @property
    def crosses_groups(self) -> bool:
        return self.renormalise

    def __call__(self, batch: Batch) -> Tensor:
        returns = batch.rewards.double().sum(-1)
        worth = self._best(returns, batch) if self.keep == "best" else returns.clamp(min=0)
        found = worth[:, None] * batch.mask
        if self.renormalise:
            weight = batch.mask * batch.weight.double()
            kept = weight[worth > 0].sum()
            found = found * (weight.sum() / kept if kept else 0.0)
        return found.float()

    @staticmethod
    def _best(returns: Tensor, batch: Batch) -> Tensor:
        chosen = returns.new_zeros(len(returns))
        for group in batch.group.unique().tolist():
            rows = (batch.group == group).nonzero().flatten()
            chosen[rows[(returns[rows] == returns[rows].max()).nonzero()[0]]] = 1.0
        return chosen
