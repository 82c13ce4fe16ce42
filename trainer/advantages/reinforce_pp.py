"""REINFORCE++ and its baseline variant (arXiv 2501.03262)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class ReinforcePp(Advantage):
    """A = (G - mean) / sqrt(var + 1e-8) over all actions of the step, on all processes.

    `baseline: none`: G[i, t] = sum over s >= t of gamma^(s - t) r[i, s], which needs no groups and
    usually a KL penalty in the rewards. `baseline: group`: G[i, t] = R_i - mean of the group; after
    whitening, a group whose returns are all equal then sits at -mean / std, not at 0, because long
    rows weigh more: drop such groups (`zero_variance`) if that matters. Equal G, and a step with
    one action, give exactly 0.
    """

    gamma: float = Field(1.0, ge=0, le=1)
    """Discount per action; not used by `baseline: group`."""
    baseline: Literal["none", "group"] = "none"
    normalise: Literal["std", "mean", "none"] = "std"
    """`mean` only centres (OpenRLHF's `no_std_norm`); `none` leaves G as it is."""
    unbiased: bool = True
    """Variance with ddof 1 (verl). False: ddof 0, bounded below by 1e-8 (OpenRLHF)."""
    reset_at_gaps: bool = False
    """verl's form: a block of tokens that the policy did not write cuts the sum, so that earlier
    turns earn nothing of what comes after it."""

    @property
    def crosses_groups(self) -> bool:
        return self.normalise != "none"

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_centred
        from trainer.ops.returns import reward_to_go, whiten

        if self.baseline == "group":
            centred = group_centred(batch.rewards.double().sum(-1), batch.group)
            found = centred[:, None] * batch.mask
        else:
            found = reward_to_go(
                batch.rewards, batch.mask, self.gamma, reset_at_gaps=self.reset_at_gaps
            )
        if self.normalise != "none":
            found = whiten(
                found,
                batch.mask * batch.weight,
                unbiased=self.unbiased,
                clamp=not self.unbiased,
                scale=self.normalise == "std",
            )
        return found.float()
