"""DAPO's overlong filtering: no loss on answers that were cut off (arXiv 2503.14476)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from trainer.types import Batch


class MaskTruncated(Modifier):
    """Takes every action of a truncated rollout out of the mask: no loss, no advantage, no share in
    denominators and whitening. Its return stays in the statistics of its group, as in TRL's
    `mask_truncated_completions`; the filter `overlong` drops whole groups instead.

    Do not add the reward `length/overlong` to it: a masked answer cannot be punished.
    """

    @property
    def changes_loss(self) -> bool:
        return False

    def on_batch(self, batch: Batch, all_reduce: Callable[[Tensor], Tensor]) -> Batch:
        if batch.truncated is None:
            raise ValueError("modifier mask_truncated: this batch does not say what was truncated")
        return batch.with_(mask=batch.mask & ~batch.truncated[:, None])
