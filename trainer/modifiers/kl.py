"""KL divergence to the reference policy, in the loss or in the rewards.

Estimators of KL(pi || ref) from a sampled token, with d = logp - logp_ref
(http://joschu.net/blog/kl-approx.html): k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d, abs = |d|.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, model_validator

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
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})

    coef: float = Field(0.001, ge=0)
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

    @model_validator(mode="after")
    def _gradients_exist(self) -> Kl:
        if self.where == "reward" and (self.straight_through or self.off_policy_correction):
            raise ValueError(
                "straight_through and off_policy_correction act on gradients, and `where: reward` "
                "has none: use `where: loss`, or leave them out"
            )
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

    def on_rewards(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        if self.where != "reward":
            return batch, {}
        from trainer.ops.masked import masked_mean

        sampled = batch.sampled_logprobs if batch.old_logprobs is None else batch.old_logprobs
        penalty = self.estimate(sampled, cast("Tensor", batch.ref_logprobs)) * batch.mask
        rewards = batch.rewards - self.coef * penalty
        return batch.with_(rewards=rewards), {
            "kl_ref": masked_mean(penalty, batch.mask * batch.weight).item()
        }

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.where != "loss":
            return per_action, {}
        logprobs = evaluation.logprobs
        value = self.estimate(logprobs, cast("Tensor", batch.ref_logprobs))
        if self.off_policy_correction:
            old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
            value = value * (logprobs - old).clamp(-20, 20).exp()
        return per_action + self.coef * value, {"kl_ref": value.detach()}

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
