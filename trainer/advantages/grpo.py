"""Group-relative advantage of GRPO (DeepSeekMath, arXiv 2402.03300)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Grpo(Advantage):
    """A[i, t] = (R_i - mean of the group) / (std + eps) on every action of row i.

    R_i is the return of the row; std is unbiased (ddof 1), over the rows that are there, so a
    group with failed scores is just a smaller group. A group whose returns are all equal, or of
    one row, gives exactly 0. A row (root-to-leaf path) is the unit: a rollout with several leaves
    counts once per leaf.
    """

    eps: float = Field(1e-6, ge=0)
    """Added to the standard deviation: verl 1e-6, TRL 1e-4."""
    scale_by_std: Literal["group", "batch", "none"] = "group"
    """`batch` divides by the deviation of all returns of the step, over all processes."""

    @property
    def crosses_groups(self) -> bool:
        return self.scale_by_std == "batch"

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_centred, group_std

        returns = batch.rewards.double().sum(-1)
        centred = group_centred(returns, batch.group)
        if self.scale_by_std == "group":
            std = group_std(returns, batch.group)
        elif self.scale_by_std == "batch":
            std = group_std(returns, batch.group.new_zeros(len(returns)))
        else:
            return (centred[:, None] * batch.mask).float()
        scaled = (centred / (std + self.eps)).masked_fill(centred == 0, 0.0)
        return (scaled[:, None] * batch.mask).float()
