"""Contract of `modifiers:`: what is added to rewards or to a loss (KL, entropy, TIS, masks)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Modifier(Plugin):
    """Both hooks do nothing by default; a modifier overrides the one it needs."""

    family: ClassVar[str] = "trainer.modifiers"
    needs: ClassVar[frozenset[str]] = frozenset()
    """As `Loss.needs`; may be a property where it depends on the fields."""

    @property
    def changes_loss(self) -> bool:
        """False if `on_loss` is never used, so zero-advantage rows may still be skipped."""
        return True

    def on_rewards(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        """Before advantages; returns the batch and numbers to log."""
        return batch, {}

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """After the loss, before aggregation; metrics as in `Loss`."""
        return per_action, {}
