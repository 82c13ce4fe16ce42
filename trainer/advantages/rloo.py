"""Leave-one-out advantage of RLOO ("Back to Basics", arXiv 2402.14740)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Rloo(Advantage):
    """A[i, t] = R_i - mean of the other rows' R = G / (G - 1) (R_i - mean of the group).

    G is the size the group really has. Unbiased; equal returns give exactly 0, and so does a
    group of one, which has no baseline.
    """

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_centred, group_count

        size = group_count(batch.group).double()
        centred = group_centred(batch.rewards.double().sum(-1), batch.group)
        left_out = centred * size / (size - 1).clamp(min=1)
        return (left_out[:, None] * batch.mask).float()
