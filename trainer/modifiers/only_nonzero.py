"""Denominators that count only the actions with an advantage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from trainer.ops.across import Across
    from trainer.types import Batch


class OnlyNonzero(Modifier):
    """Takes actions with A = 0 out of the loss and of its denominators.

    RAFT and RAFT++ (arXiv 2504.11343) divide by all actions, rejected ones too, so that the step
    shrinks where few answers are right; with this it does not. Terms that other modifiers add are
    then also over the actions that are left.
    """

    @property
    def changes_loss(self) -> bool:
        return False

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        from trainer.ops.filled import filled

        return batch.with_(mask=batch.mask & (filled(batch.advantages, "advantages") != 0))
