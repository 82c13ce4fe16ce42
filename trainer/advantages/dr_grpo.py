"""Mean-centred advantage of Dr. GRPO (arXiv 2503.20783)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class DrGrpo(Advantage):
    """A[i, t] = R_i - mean of the group, on every action of row i: no division by the standard
    deviation, which would favour very easy and very hard questions.

    Pair it with `aggregation: seq_mean_token_sum_norm`. Equal returns give exactly 0. The scale
    follows the rewards: retune `lr` when they change.
    """

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_centred

        centred = group_centred(batch.rewards.double().sum(-1), batch.group)
        return (centred[:, None] * batch.mask).float()
