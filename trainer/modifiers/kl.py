"""KL divergence to the reference policy, in the loss or in the rewards.

Estimators of KL(pi || ref) from a sampled token, with d = logp - logp_ref
(http://joschu.net/blog/kl-approx.html): k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d, abs = |d|.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Kl(Modifier):
    """`where: loss` adds `coef k` to every action's loss (GRPO, with k3). `where: reward` takes
    `coef k` off every action's reward before advantages (PPO, RLOO, with k1); there logp is
    `old_logprobs` where the batch has it, else the engine's, and nothing is differentiated.

    As a loss, k1 has gradient 0 in expectation and k3 has forward KL's; k2's is right. See
    `straight_through`.

    With `target` the coefficient follows the divergence (arXiv 1909.08593): after every step
    coef *= 1 + clip(KL / target - 1, -0.2, 0.2) n / horizon, with KL the mean over the step's n
    rows of the mean `estimator` of a row's actions, before the update and over all processes. It
    is part of a checkpoint, and reported as `kl_coef`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})

    coef: float = Field(0.001, ge=0)
    """At the first step, where `target` is set."""
    target: float | None = Field(None, gt=0)
    """KL, in nats per action, to keep to; None: the coefficient is fixed."""
    horizon: int = Field(10_000, gt=0)
    """Rows in which the coefficient may grow by 20 percent, with `target`."""
    estimator: Literal["k1", "k2", "k3", "abs"] = "k3"
    where: Literal["loss", "reward"] = "loss"
    straight_through: bool = False
    """The value of `estimator` with the gradient of k2 (verl's `k3+`)."""
    off_policy_correction: bool = False
    """Multiply by rho = exp(logp - logp_old), gradient included (DeepSeek-V3.2)."""
    clamp_difference: float | None = Field(20.0, gt=0)
    """Bound of |d|; outside it the gradient is 0. verl: 20."""
    clamp_value: float | None = Field(None, gt=0)
    """Bound of the estimate's size; outside it the gradient is 0. verl and OpenRLHF: 10."""
    _next: float | None = PrivateAttr(None)
    _in_force: float | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _gradients_exist(self) -> Kl:
        if self.where == "reward" and (self.straight_through or self.off_policy_correction):
            raise ValueError(
                "straight_through and off_policy_correction act on gradients, and `where: reward` "
                "has none: use `where: loss`, or leave them out"
            )
        return self

    @model_validator(mode="after")
    def _can_adapt(self) -> Kl:
        if self.target is not None and self.coef == 0:
            raise ValueError("target: the coefficient is multiplied, so coef: 0 would stay 0")
        return self

    @property
    def changes_loss(self) -> bool:
        return self.where == "loss" and self.coef > 0

    def estimate(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """[B, T]: the estimator of every action."""
        value = self._value(self.estimator, logprobs - ref_logprobs)
        if self.straight_through:
            surrogate = self._value("k2", logprobs - ref_logprobs)
            value = surrogate - surrogate.detach() + value.detach()
        return value

    def on_batch(self, batch: Batch, all_reduce: Callable[[Tensor], Tensor]) -> Batch:
        if self.target is None:
            return batch
        import torch

        from trainer.ops.filled import filled
        from trainer.ops.surrogate import row_mean

        each = self.estimate(self._sampled(batch), filled(batch.ref_logprobs, "ref_logprobs"))
        filled_rows = batch.mask.any(-1).double()
        rows = row_mean(each.double(), batch.mask)[:, 0] * filled_rows
        total, count = all_reduce(torch.stack([rows.sum(), filled_rows.sum()])).tolist()
        self._in_force = self.coef if self._next is None else self._next
        error = min(max(total / max(count, 1.0) / self.target - 1, -0.2), 0.2)
        self._next = self._in_force * (1 + error * count / self.horizon)
        return batch

    def on_rewards(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        if self.where != "reward":
            return batch, {}
        from trainer.ops.filled import filled
        from trainer.ops.masked import masked_mean

        reference = filled(batch.ref_logprobs, "ref_logprobs")
        penalty = self.estimate(self._sampled(batch), reference) * batch.mask
        rewards = batch.rewards - self._coef * penalty
        numbers = {"kl_ref": masked_mean(penalty, batch.mask * batch.weight).item()}
        if self.target is not None:
            numbers["kl_coef"] = self._coef
        return batch.with_(rewards=rewards), numbers

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.where != "loss":
            return per_action, {}
        import torch

        from trainer.ops.filled import filled

        logprobs = evaluation.logprobs
        value = self.estimate(logprobs, filled(batch.ref_logprobs, "ref_logprobs"))
        if self.off_policy_correction:
            old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
            value = value * (logprobs - old).clamp(-20, 20).exp()
        metrics = {"kl_ref": value.detach()}
        if self.target is not None:
            metrics["kl_coef"] = torch.full_like(metrics["kl_ref"], self._coef)
        return per_action + self._coef * value, metrics

    def state_dict(self) -> dict[str, Any]:
        return {"coef": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next = state["coef"]

    @property
    def _coef(self) -> float:
        return self.coef if self._in_force is None else self._in_force

    def _sampled(self, batch: Batch) -> Tensor:
        return batch.sampled_logprobs if batch.old_logprobs is None else batch.old_logprobs

    def _value(self, estimator: str, difference: Tensor) -> Tensor:
        d = difference
        if self.clamp_difference is not None:
            d = d.clamp(-self.clamp_difference, self.clamp_difference)
        if estimator == "k1":
            value = d
        elif estimator == "k2":
            value = d**2 / 2
        elif estimator == "k3":
            value = (-d).exp() - 1 + d
        else:
            value = d.abs()
        if self.clamp_value is not None:
            value = value.clamp(-self.clamp_value, self.clamp_value)
        return value
