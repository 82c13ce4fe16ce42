"""Clip-Cov ("The entropy mechanism of RL for reasoning", arXiv 2505.22617)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class ClipCov(Loss):
    """PPO's clipped surrogate, times 0 at a random few actions whose log-probability and advantage
    move together: the ones that make entropy fall. Denominators go on counting them.

    cov_t = (A_t - mean A) (logp_t - mean logp), over the minibatch and all processes (the official
    code: over the micro-batch). Candidates have cov_low < cov_t < cov_high and are not clipped
    already; max(1, int(share N)) of them are drawn, all if there are fewer, N the number of
    actions. The draw depends on (seed, step, epoch, minibatch) and on the tokens alone. Needs a
    forward pass before each minibatch.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"current_logprobs"})
    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    share: float = Field(2e-4, gt=0, le=1)
    """Of all actions."""
    cov_low: float = 1.0
    cov_high: float = 5.0
    clip_low: float = Field(1.0, gt=0, le=1)
    """1, the official script's, leaves ratios free downwards."""
    clip_high: float = Field(1.0, gt=0)
    dual_clip: float | None = Field(None, gt=1)
    """As in `ppo_clip`."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log rho| before exp."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> ClipCov:
        if self.cov_low >= self.cov_high:
            raise ValueError(
                f"cov_low = {self.cov_low:g} must be below cov_high = {self.cov_high:g}"
            )
        return self

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        import torch

        from trainer.ops.covariance import covariance
        from trainer.ops.filled import filled
        from trainer.ops.selection import action_keys, largest
        from trainer.types import Evaluation

        now = filled(batch.extra.get("current_logprobs"), "current_logprobs")
        counted = batch.mask * batch.weight
        cov, actions = covariance(now, filled(batch.advantages, "advantages"), counted, across.sum)
        _, metrics = self._surrogate(Evaluation(now), batch)
        free = (metrics["clip_low"] + metrics["clip_high"]) == 0
        candidate = (cov > self.cov_low) & (cov < self.cov_high) & free
        chosen = largest(
            torch.zeros_like(cov),
            action_keys(batch.tokens, batch.mask, across.random.getrandbits(62)),
            counted * candidate,
            max(1, int(self.share * actions + 1e-9)),
            across,
        )
        return batch.with_(extra=batch.extra | {"cov_dropped": chosen.to(now.dtype)})

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        per_action, metrics = self._surrogate(evaluation, batch)
        dropped = batch.extra["cov_dropped"]
        return per_action * (1 - dropped), metrics | {"cov_dropped": dropped}

    def _surrogate(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.filled import filled
        from trainer.ops.surrogate import clipped_surrogate, log_ratio

        bound = self.log_ratio_clamp
        return clipped_surrogate(
            log_ratio(evaluation, batch).clamp(-bound, bound),
            filled(batch.advantages, "advantages"),
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )
