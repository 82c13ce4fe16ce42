"""The same weight for every action: imitation of what is in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Identity(Advantage):
    """A[i, t] = 1 on every action, whatever the reward. With `loss: nll` this is supervised
    fine-tuning."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask.float()
