"""Decoupled PPO for stale rollouts (AReaL, arXiv 2505.24298; after arXiv 2110.00641)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class DecoupledPpo(Loss):
    """w max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), rho = exp(logp - logp_prox).

    The trust region is centred on the proximal policy, the one before the update; the distance to
    the engine's, which may be several versions old, is the weight w = exp(logp_prox - logp_engine)
    without gradient. logp_prox is `old_logprobs`, or the training forward's own log-probs where a
    batch makes a single update. Denominators count every action, masked ones too.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"sampled_logprobs"})
    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    clip_low: float = Field(0.2, gt=0, le=1)
    clip_high: float = Field(0.2, gt=0)
    dual_clip: float | None = Field(None, gt=1)
    """Where A < 0 the loss, before w, is at most -A times this."""
    cap: float = Field(5.0, gt=0)
    """Largest allowed value of `metric`."""
    floor: float | None = None
    """Smallest allowed value of `metric`; None: no bound."""
    action: Literal["mask", "clamp"] = "mask"
    """What is out of bounds adds nothing (`mask`), or has its w brought back (`clamp`)."""
    level: Literal["token", "sequence"] = "token"
    """What is judged. At `sequence` with `ratio`, w is the geometric mean of the row."""
    metric: Literal["ratio", "k1", "k2", "k3"] = "ratio"
    """`ratio`: w. With d = log w: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d."""
    aggregate: Literal["mean", "sum", "max"] = "mean"
    """Of the metric over a row, at `sequence`; of log w for `ratio`."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log rho| and |log w| before exp."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> DecoupledPpo:
        if self.floor is not None and self.floor >= self.cap:
            raise ValueError(f"floor = {self.floor:g} must be below cap = {self.cap:g}")
        if self.action == "clamp" and self.metric != "ratio":
            raise ValueError(f"action: clamp bounds w: it needs metric: ratio, not {self.metric}")
        return self

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.filled import filled
        from trainer.ops.surrogate import clipped_surrogate

        logprobs = evaluation.logprobs
        proximal = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
        per_action, metrics = clipped_surrogate(
            self._bounded(logprobs - proximal),
            filled(batch.advantages, "advantages"),
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )
        weight, cut = self.weights(proximal - batch.sampled_logprobs, batch.mask)
        return per_action * weight, metrics | {"behaviour_weight": weight, "cut": cut.float()}

    def weights(self, log_ratio: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """w f[B, T], 0 where masked, and b[B, T] where a bound acted, from log w f[B, T]. Values
        of `log_ratio` that are not finite count as 0 (AReaL)."""
        import torch

        d = self._bounded(torch.where(mask & log_ratio.isfinite(), log_ratio, 0.0))
        judged, by_row = self._judged(d), self.level == "sequence"
        if by_row:
            judged = self._over_row(judged, mask)
        weight = d.exp()
        if self.metric == "ratio":
            weight = self._over_row(d, mask, "mean").exp() if by_row else weight
            judged = judged.exp()
        cut = judged > self.cap
        if self.floor is not None:
            cut = cut | (judged < self.floor)
        cut = cut.expand_as(mask) & mask
        weight = weight.expand_as(d) * mask
        if self.action == "mask":
            return weight.masked_fill(cut, 0.0), cut
        return torch.where(cut, weight.clamp(self.floor or 0.0, self.cap), weight), cut

    def _judged(self, d: Tensor) -> Tensor:
        """The metric per action; in logarithms for `ratio`."""
        if self.metric == "k2":
            return d**2 / 2
        if self.metric == "k3":
            return (-d).exp() - 1 + d
        return d

    def _over_row(self, values: Tensor, mask: Tensor, how: str = "") -> Tensor:
        """[B, 1]"""
        how = how or self.aggregate
        if how == "max":
            found = values.masked_fill(~mask, float("-inf")).amax(-1, keepdim=True)
            return found.masked_fill(~mask.any(-1, keepdim=True), 0.0)
        total = (values * mask).sum(-1, keepdim=True)
        return total if how == "sum" else total / mask.sum(-1, keepdim=True).clamp(min=1)

    def _bounded(self, log_ratio: Tensor) -> Tensor:
        return log_ratio.clamp(-self.log_ratio_clamp, self.log_ratio_clamp)
