"""The hinge loss of a discriminator: real and generated answers on two sides of 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.losses.base import RowLoss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Hinge(RowLoss):
    """l = max(0, 1 - v) for a row whose return is above 0.5, max(0, 1 + v) else; v the value at the
    row's last action; the mean over rows. With as many rows of each kind that is
    1/2 (mean of the real + mean of the generated), the discriminator of Adv-GRPO. For `policy:
    {head: value, value_at: after}`. Metric: `accuracy` (v on its side of 0)."""

    trains_judge: ClassVar[bool] = True

    def of_rows(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from trainer.ops.returns import at_last_action

        if evaluation.values is None:
            raise ValueError("loss: hinge needs policy: {head: value, value_at: after}")
        ones = evaluation.values.new_ones(len(batch.mask))
        values = (evaluation.values * at_last_action(ones, batch.mask)).sum(-1)
        side = torch.where(batch.rewards.sum(-1) > 0.5, 1.0, -1.0).to(values)
        right = (side * values > 0).to(values)
        return torch.relu(1 - side * values), {"accuracy": right[:, None] * batch.mask}
