"""Self-imitation: likelihood of the answers that were right (VAPO, after arXiv 2504.05118)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class PositiveNll(Modifier):
    """L += coef sum(-logp) / N over the N actions of correct rows in the minibatch, on all
    processes; nothing where there is none. N is its own denominator whatever the loss's
    aggregation.

    A row is correct if its return (or the reward `part`) is at least `threshold`. Put a modifier
    that makes the mask smaller before this one: it counts the actions that are left.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    coef: float = Field(0.1, ge=0)
    """mu; VAPO: 0.1."""
    part: str | None = None
    """Reward component that says what is correct; None: the row's return, penalties included."""
    threshold: float = 0.5
    """Fits rewards of 0 and 1 and of -1 and 1. A component that is missing is not correct."""

    @property
    def changes_loss(self) -> bool:
        return self.coef > 0

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        value = batch.rewards.sum(-1) if self.part is None else self._part(batch, self.part)
        positive = batch.mask & (value >= self.threshold)[:, None]
        counted = positive * batch.weight.double()
        total = across.sum(counted.sum()).clamp(min=1e-300)
        share = (counted / total).to(batch.weight.dtype)
        return batch.with_(extra=batch.extra | {"positive_share": share})

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        share, scale = batch.extra["positive_share"], batch.extra["scale"]
        # The learner will multiply by `scale`; what is left is 1 / N.
        own = torch.where((share > 0) & (scale > 0), share / scale, 0.0)
        nll = -evaluation.logprobs * own
        return per_action + self.coef * nll, {"positive": (share > 0).to(nll.dtype)}

    def _part(self, batch: Batch, name: str) -> Tensor:
        if name not in batch.parts:
            known = ", ".join(sorted(batch.parts)) or "none"
            raise ValueError(
                f"positive_nll.part: {name!r} is no part of the reward; this recipe's: {known}"
            )
        return batch.parts[name]
