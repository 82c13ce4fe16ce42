"""The Bradley-Terry loss on pairs of answers: what a reward model learns by."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class BradleyTerry(Loss):
    """l = -log s(v_i - v_j - margin) + centre (v_i + v_j)^2 / 2 for every pair of rows of a group
    of which i has the higher return, s the sigmoid and v the value after the row's last token
    (InstructGPT, arXiv:2203.02155: all pairs of a prompt together, averaged).

    Groups count by their rows, pairs of a group alike; no other token counts, also not in the
    denominator. A group whose returns are all equal has no pair and gives 0. For `policy:
    {head: value, value_at: after}`. Metrics: `accuracy` (v_i > v_j), `gap` (v_i - v_j).
    """

    trains_judge: ClassVar[bool] = True
    couples_rows: ClassVar[bool] = True

    margin: float = Field(0.0, ge=0, allow_inf_nan=False)
    """How far apart the values must be (Llama 2, arXiv:2307.09288, sets it by rating)."""
    centre: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Pulls values towards 0, which the pairs alone leave free (arXiv:2312.09244: 0.01)."""

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        from trainer.ops.returns import actions_left

        order = batch.rewards.double().sum(-1)
        paired = _pairs(order, batch.group).any(-1) | _pairs(order, batch.group).any(0)
        last = batch.mask & (actions_left(batch.mask) == 1)
        return batch.with_(mask=last & paired[:, None])

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from torch.nn.functional import logsigmoid

        if evaluation.values is None:
            raise ValueError("loss: bradley_terry needs policy: {head: value, value_at: after}")
        values = (evaluation.values * batch.mask).sum(-1)  # one action a row is left
        better = _pairs(batch.rewards.double().sum(-1), batch.group)
        gap = values[:, None] - values[None]
        centre = self.centre * (values[:, None] + values[None]) ** 2 / 2
        losses = (centre - logsigmoid(gap - self.margin)) * better
        # Each pair on its better row, weighted so that all rows of the group share them evenly.
        same = batch.group[:, None] == batch.group[None]
        pairs = same.double() @ better.double().sum(-1)
        rows = same.double() @ batch.mask.any(-1).double()
        scale = (rows / pairs.clamp(min=1))[:, None]

        def placed(x: Tensor) -> Tensor:
            return ((x * better).sum(-1, keepdim=True) * scale).to(values) * batch.mask

        metrics = {"accuracy": placed((gap > 0).double()), "gap": placed(gap.detach())}
        return placed(losses), metrics


def _pairs(order: Tensor, group: Tensor) -> Tensor:
    """b[B, B]: row i is better than row j of its group."""
    return (group[:, None] == group[None]) & (order[:, None] > order[None])
