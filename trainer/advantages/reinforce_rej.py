"""Reinforce-Rej: plain rewards, without prompts that teach nothing (arXiv 2504.11343)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class ReinforceRej(Advantage):
    """A[i, t] = R_i, and 0 in groups whose returns are all equal (all right or all wrong).

    No baseline is taken off: the sign of the reward matters, so use +1/-1; with 0/1 this is RAFT
    on mixed prompts. A group of one keeps its R.
    """

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_centred, group_count

        returns = batch.rewards.double().sum(-1)
        size = group_count(batch.group)
        spread = group_centred(returns, batch.group) != 0
        mixed = batch.group.unsqueeze(0).eq(batch.group.unsqueeze(1)) & spread.unsqueeze(0)
        kept = returns * (mixed.any(-1) | (size == 1))
        return (kept[:, None] * batch.mask).float()
