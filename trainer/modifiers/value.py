"""Teaches the value head of a policy with a shared trunk (`policy.head: both`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Value(Modifier):
    """l += coef / 2 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2), aggregated with
    the loss. Its gradient also reaches the trunk.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    trains_values: ClassVar[bool] = True

    coef: float = Field(0.1, gt=0)
    clip: float | None = Field(0.5, gt=0)
    """As in the loss `value_clip`."""
    huber: float | None = Field(None, gt=0)
    """As in the loss `value_clip`."""

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.value_loss import value_loss

        values, old, returns = evaluation.values, batch.values, batch.returns
        if values is None or old is None or returns is None:
            raise ValueError("the modifier value needs an advantage with returns, such as gae")
        error, metrics = value_loss(values, old, returns, clip=self.clip, huber=self.huber)
        return per_action + self.coef * error, metrics
