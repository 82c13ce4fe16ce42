"""Only the actions at forks of the reasoning teach ("Beyond the 80/20 rule", arXiv 2506.01939)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class TokenEntropyMask(Modifier):
    """l_t = 0 unless the entropy of the policy at t, before the update, lies in a band of
    quantiles over the minibatch and all processes: from `low`, included, to `high`, left out
    unless it is 1.

    `low: 0.8` is the paper's top 20 percent; `{low: 0, high: 0.2}` its opposite, the bottom 20.
    Quantiles are interpolated as in TRL, which takes them over the micro-batch. Terms that other
    modifiers add (KL, entropy) are not masked.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"old_entropy"})
    scales_loss: ClassVar[bool] = True

    low: float = Field(0.8, ge=0, le=1)
    high: float = Field(1.0, ge=0, le=1)
    renormalize: bool = False
    """Take the other actions out of the denominators too, and so out of every term."""

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> TokenEntropyMask:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        return self

    @property
    def changes_loss(self) -> bool:
        """A mask leaves a loss without gradient without one."""
        return False

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        import math

        from trainer.ops.filled import filled
        from trainer.ops.selection import action_keys, largest

        entropy = filled(batch.extra.get("old_entropy"), "old_entropy")
        counted = batch.mask * batch.weight
        keys = action_keys(batch.tokens, batch.mask, across.random.getrandbits(62))
        actions = float(across.sum(counted.double().sum()))

        def above(quantile: float) -> Tensor:
            amount = actions - math.ceil((actions - 1) * quantile - 1e-6) if actions else 0.0
            return largest(entropy, keys, counted, amount, across)

        kept = above(self.low)
        if self.high < 1:
            kept = kept & ~above(self.high)
        if self.renormalize:
            batch = batch.with_(mask=kept)
        return batch.with_(extra=batch.extra | {"entropy_kept": kept.to(entropy.dtype)})

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kept = batch.extra["entropy_kept"]
        return per_action * kept, {"entropy_kept": kept}
