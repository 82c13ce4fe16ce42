"""Advantages without outliers (the advantage filter of StableReinforce)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Filtered(Advantage):
    """A[i, t] of `advantage` where |A[i, t]| <= sigmas, else 0: such an action keeps its place in
    the loss's denominator, and what is left is not normalised again.

    `sigmas` means standard deviations if `advantage` divides by one: `reinforce_pp`, or `grpo`,
    whose |A| is at most (G - 1) / sqrt(G), so that 3 never happens in groups of 10 or less. After
    R1-Reward (arXiv:2505.02835): three sigma is the paper's; its code has no filter.
    """

    advantage: Advantage = Field("reinforce_pp", validate_default=True)
    sigmas: float = Field(3.0, gt=0)

    @property
    def needs(self) -> frozenset[str]:
        return self.advantage.needs

    @property
    def crosses_groups(self) -> bool:
        return self.advantage.crosses_groups

    @property
    def needs_baseline(self) -> bool:
        return self.advantage.needs_baseline

    def __call__(self, batch: Batch) -> Tensor:
        found = self.advantage(batch)
        return found.masked_fill(found.abs() > self.sigmas, 0.0)

    def returns(self, batch: Batch) -> Tensor | None:
        return self.advantage.returns(batch)
