"""The clipped value loss of PPO (arXiv 1707.06347; constants of verl): what a critic learns by."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class ValueClip(Loss):
    """l = 1/2 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) at every action, with R
    the advantage's `returns` and V_old the values before the update. For `critic.loss`; a head
    shared with the policy learns by the modifier `value`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"values"})
    trains_values: ClassVar[bool] = True

    clip: float | None = Field(0.5, gt=0)
    """How far a value may move in one step; verl 0.5, TRL 0.2; None: no clipping."""
    huber: float | None = Field(None, gt=0)
    """Error from which the square becomes linear (AReaL: 10); None: never."""

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.value_loss import value_loss

        values, old, returns = evaluation.values, batch.values, batch.returns
        if values is None or old is None or returns is None:
            raise ValueError("value_clip is a loss for `critic.loss`: it needs a value head")
        return value_loss(values, old, returns, clip=self.clip, huber=self.huber)
