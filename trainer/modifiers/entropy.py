"""Entropy bonus."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Entropy(Modifier):
    """l -= coef H, with H the entropy in nats of the policy at each action; aggregated with the
    loss. A negative `coef` sharpens the policy."""

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    coef: float = 0.001

    @property
    def changes_loss(self) -> bool:
        return self.coef != 0

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return per_action - evaluation.entropy * self.coef, {}
