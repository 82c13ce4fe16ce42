"""Every reward normalised in its group by itself, then summed (MRN, ReFine-RFT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Mrn(Advantage):
    """A[i, t] = sum_k w_k (r_k[i] - mean_k) / (std_k + eps) on every action of row i, with r_k the
    part k of the reward (`Score.parts`), mean and unbiased std over the rows of the group.

    So a part on a small scale counts as much as one on a large scale, and a part that is the same
    for the whole group counts nothing. |A| can reach sum_k w_k (G - 1) / sqrt(G): mind the learning
    rate. A row for which a part does not apply is no part of its statistics and gets 0 for it;
    turn and token rewards do not enter. Raises ValueError for a part that no row of the batch has.
    Source: ReFine-RFT's MRN; the decoupled normalisation of GDPO without its second, batch-wide
    one.
    """

    weights: dict[str, float] = Field(min_length=1)
    """`{part: weight}`, by the names under which parts are logged: `format`, `shapes/iou`, ..."""
    eps: float = Field(1e-4, ge=0)

    @field_validator("weights")
    @classmethod
    def _some(cls, value: dict[str, float]) -> dict[str, float]:
        if not any(value.values()):
            raise ValueError("weights: all are 0, nothing would be learned")
        return value

    def __call__(self, batch: Batch) -> Tensor:
        import torch

        from trainer.ops.masked import group_centred, group_std

        if not any(name in batch.parts for name in self.weights):
            have = ", ".join(sorted(batch.parts)) or "none"
            raise ValueError(
                f"advantage.weights: the reward has no part {next(iter(self.weights))!r}; "
                f"its parts: {have}"
            )
        total = torch.zeros(len(batch.group), dtype=torch.float64, device=batch.mask.device)
        for name, weight in self.weights.items():
            if name not in batch.parts:
                continue  # a task that drew no row this step
            part = batch.parts[name].double().to(total.device)
            there = ~part.isnan()
            group = batch.group.to(total.device)[there]
            if not len(group):
                continue
            centred = group_centred(part[there], group)
            scaled = centred / (group_std(part[there], group) + self.eps)
            total[there] += weight * scaled.masked_fill(centred == 0, 0.0)
        return (total[:, None] * batch.mask).float()
