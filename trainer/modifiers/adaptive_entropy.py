"""Entropy bonus with a target (Skywork-OR1, arXiv 2505.22312)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr, model_validator

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class AdaptiveEntropy(Modifier):
    """l -= c_k H while the entropy e_k, in nats per action over the step's whole batch and before
    its update, is at most `target`; else nothing. Then c_(k+1) = c_k + delta if e_k <= `target`,
    else c_k - delta, kept in [low, high].

    H is aggregated with the loss, as in `entropy`. c is part of a checkpoint. Measuring e_k needs a
    pass before the update, the one of `old_logprobs` where the recipe has it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"entropy", "old_entropy"})

    target: float = Field(0.2, gt=0)
    """In nats."""
    coef: float = Field(0.0, ge=0)
    """c at the first step."""
    delta: float = Field(0.005, gt=0)
    low: float = Field(0.0, ge=0)
    high: float = Field(1.0, gt=0)
    _coef: float | None = PrivateAttr(None)
    _in_force: float = PrivateAttr(0.0)

    @model_validator(mode="after")
    def _starts_inside(self) -> AdaptiveEntropy:
        if not self.low <= self.coef <= self.high:
            raise ValueError(
                f"coef = {self.coef:g} must lie between low = {self.low:g} and high = {self.high:g}"
            )
        return self

    def on_batch(self, batch: Batch, all_reduce: Callable[[Tensor], Tensor]) -> Batch:
        import torch

        from trainer.ops.filled import filled
        from trainer.ops.masked import masked_sum

        entropy = filled(batch.extra.get("old_entropy"), "old_entropy").double()
        counted = (batch.mask * batch.weight).double()
        totals = all_reduce(torch.stack([masked_sum(entropy, counted), counted.sum()]))
        total, actions = totals.tolist()
        coef = self.coef if self._coef is None else self._coef
        if not actions:
            self._in_force, self._coef = 0.0, coef
            return batch
        short = total / actions <= self.target
        self._in_force = coef if short else 0.0
        self._coef = min(max(coef + (self.delta if short else -self.delta), self.low), self.high)
        return batch

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from trainer.ops.filled import filled

        entropy = filled(evaluation.entropy, "entropy")
        coef = torch.full_like(per_action.detach(), self._in_force)
        return per_action - coef * entropy, {"entropy_coef": coef}

    def state_dict(self) -> dict[str, Any]:
        return {"coef": self._coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._coef = state["coef"]
