"""Generalised advantage estimation with a critic (PPO, VC-PPO, VAPO)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Gae(Advantage):
    """delta_t = r_t + gamma V_next - V_t; A_t = delta_t + gamma lam A_next; V after the last
    action is 0, also for a truncated answer.

    Tokens of tools in the middle of a row are passed over: `next` is the next action. The critic's
    target is A + V before whitening. Sources: arXiv:1506.02438; `lam_critic` VC-PPO
    (arXiv:2503.01491); `alpha` VAPO (arXiv:2504.05118).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"values"})

    gamma: float = Field(1.0, ge=0, le=1)
    lam: float = Field(1.0, ge=0, le=1)
    lam_critic: float | None = Field(None, ge=0, le=1)
    """lam of the critic's target; None: that of the advantages. VC-PPO: 1, the plain return."""
    alpha: float | None = Field(None, gt=0)
    """Makes lam grow with the answer: 1 - 1 / (alpha l), never under 0, l the actions of the row.
    VAPO: 0.05. `lam` is then not used."""
    whiten: bool = True
    """Mean 0 and variance 1 over all actions of the step: (A - mean) / sqrt(var + 1e-8), unbiased.
    A step whose advantages are all equal gives exactly 0."""

    @property
    def crosses_groups(self) -> bool:
        return self.whiten

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.returns import whiten

        found = self._estimate(batch, self._lam(batch))
        if self.whiten:
            found = whiten(found, batch.mask * batch.weight)
        return found.float()

    def returns(self, batch: Batch) -> Tensor:
        lam = self._lam(batch) if self.lam_critic is None else self.lam_critic
        return ((self._estimate(batch, lam) + _values(batch).double()) * batch.mask).float()

    def _lam(self, batch: Batch) -> float | Tensor:
        """Of the advantages; [B] where it depends on the length."""
        if self.alpha is None:
            return self.lam
        length = batch.mask.double().sum(-1).clamp(min=1)
        return (1 - 1 / (self.alpha * length)).clamp(0, 1)

    def _estimate(self, batch: Batch, lam: float | Tensor) -> Tensor:
        from trainer.ops.returns import gae

        return gae(batch.rewards, _values(batch), batch.mask, self.gamma, lam)


def _values(batch: Batch) -> Tensor:
    if batch.values is None:
        raise ValueError(
            "advantage: gae needs values, and this batch has none: choose a policy with a value "
            "head, or an advantage without a critic (grpo, rloo, reinforce_pp)"
        )
    return batch.values
