"""Rollout correction: the tokens came from other probabilities than the policy's.

Three things part them: other kernels or another precision in the engine, weights that are some
versions old (`rollouts.max_lag`), and weights that changed inside a reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from trainer.modifiers.base import Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation

_NO_LIMIT = float("inf")
_BANDS = {
    ("token_truncate", ""): (0.0, 2.0),
    ("token_mask", ""): (0.5, 5.0),
    ("sequence_truncate", "geometric_mean"): (0.0, 2.0),
    ("sequence_truncate", "product"): (0.0, 2.0),
    ("sequence_mask", "geometric_mean"): (0.5, 2.0),
    ("sequence_mask", "product"): (0.0, 3.0),
    ("none", ""): (0.0, _NO_LIMIT),
}
"""`low` and `high` where the recipe gives none: verl's, IcePop's and TRL's."""


class Tis(Modifier):
    """l_t *= w_t, a weight without gradient made of r_t = exp(logp_old - logp_engine).

    | mode                | w_t                                                     | known as |
    |---------------------|---------------------------------------------------------|----------|
    | `token_truncate`    | r_t brought into [low, high]                            | TIS      |
    | `token_mask`        | r_t where it lies in [low, high], else 0                | IcePop   |
    | `sequence_truncate` | R of the row brought into [low, high]                   | verl     |
    | `sequence_mask`     | geometric: r_t where R is in [low, high], else 0        | OpenRLHF |
    |                     | product: R where it is in [low, high], else 0           | TRL, MIS |
    | `none`              | 1: for `off_policy_delta` alone                         |          |

    R is the geometric mean or the product of r_t over the row's actions. A product explodes or
    vanishes with length: at a gap of 1e-3 per token its mask drops nearly every long answer.

    logp_old is the policy before the update: `old_logprobs` if the batch has it, else the training
    forward's own log-probs, which are the same number where a batch makes a single update (but for
    dropout: then set `learner.old_logprobs: recompute`). The learner multiplies after the loss has
    clipped and before any modifier adds a term, whatever the order in the recipe: a KL or entropy
    term is never weighed. Denominators keep counting what is masked.

    The metrics `mismatch_k1`, `_k3` and `_chi2` measure the distance. To reject by such statistics,
    out of the denominators too, use `rejection`.

    Source: verl `rollout_corr_helper`, TRL `vllm_importance_sampling_mode`, OpenRLHF; for
    `off_policy_delta` DeepSeek-V3.2 (arXiv 2512.02556).
    """

    scales_loss: ClassVar[bool] = True

    mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "none"] = (
        "token_truncate"
    )
    statistic: Literal["geometric_mean", "product"] = "geometric_mean"
    """R of the sequence modes."""
    low: float | None = Field(None, ge=0)
    """None: 0.5 for `token_mask` and the geometric `sequence_mask`, else 0."""
    high: float | None = Field(None, gt=0)
    """None: 2; 5 for `token_mask`, 3 for the `sequence_mask` of a product."""
    log_ratio_clamp: float = Field(20.0, gt=0)
    """Bound of |log r_t| and |log R| before exp."""
    batch_normalize: bool = False
    """Divide by the mean weight of the step's whole batch, over all processes, so that weights
    average 1; in the sequence modes every row counts once. Needs a pass for `old_logprobs`."""
    off_policy_delta: float | None = Field(None, ge=0)
    """Drops an action with A < 0 if, on average over its row, logp_engine - logp exceeds this:
    the policy has already left what it would be taught to avoid. None: off."""

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """`sampled_logprobs` says that this modifier corrects what the ratio then need not."""
        if self.mode == "none":
            return frozenset()
        return frozenset({"sampled_logprobs", *(["old_logprobs"] * self.batch_normalize)})

    @property
    def changes_loss(self) -> bool:
        """A weight leaves a loss without gradient without one."""
        return False

    @property
    def band(self) -> tuple[float, float]:
        """`low` and `high` in force."""
        by_row = self.mode.startswith("sequence")
        low, high = _BANDS[self.mode, self.statistic if by_row else ""]
        return low if self.low is None else self.low, high if self.high is None else self.high

    @model_validator(mode="after")
    def _does_something(self) -> Tis:
        low, high = self.band
        if low >= high:
            raise ValueError(f"low = {low:g} must be below high = {high:g} (mode {self.mode})")
        if self.mode == "none":
            if self.off_policy_delta is None:
                raise ValueError("mode: none does nothing without off_policy_delta")
            if self.batch_normalize or self.low is not None or self.high is not None:
                raise ValueError("low, high and batch_normalize have no meaning in mode: none")
        return self

    def weights(self, log_ratio: Tensor, mask: Tensor) -> Tensor:
        """f[B, T] from log r_t f[B, T]; 0 outside `mask` b[B, T]."""
        return self._weighed(log_ratio, mask)[0]

    def on_batch(self, batch: Batch, all_reduce: Callable[[Tensor], Tensor]) -> Batch:
        if not self.batch_normalize:
            return batch
        import torch

        weight = self.weights(batch.old_logprobs - batch.sampled_logprobs, batch.mask)
        counted = (batch.mask * batch.weight).double()
        if self.mode.startswith("sequence"):  # each row once, spread over its actions
            counted = counted / counted.sum(-1, keepdim=True).clamp(min=1e-300)
        total, number = all_reduce(torch.stack([(weight * counted).sum(), counted.sum()])).tolist()
        if total > 0:
            weight = weight * (number / total)
        return batch.with_(extra=batch.extra | {"tis_weight": weight})

    def on_loss(
        self, per_action: Tensor, evaluation: Evaluation, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, metrics = evaluation.logprobs.detach(), {}
        if self.mode != "none":
            old = logprobs if batch.old_logprobs is None else batch.old_logprobs
            weight, cut = self._weighed(old - batch.sampled_logprobs, batch.mask)
            weight = batch.extra.get("tis_weight", weight)
            per_action = per_action * weight
            metrics = {"tis_weight": weight, "tis_cut": cut.float()}
            metrics |= self._mismatch(old - batch.sampled_logprobs, batch.mask)
        if self.off_policy_delta is not None:
            from trainer.ops.masked import masked_mean

            drift = masked_mean(batch.sampled_logprobs - logprobs, batch.mask, -1)[:, None]
            dropped = (drift > self.off_policy_delta) & (batch.advantages < 0) & batch.mask
            per_action = per_action.masked_fill(dropped, 0.0)
            metrics["tis_off_policy"] = dropped.float()
        return per_action, metrics

    def _mismatch(self, log_ratio: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """verl's statistics of the distance: k1 and k3 estimate KL(engine || policy), chi2 is
        E[r^2] - 1 over the engine's tokens."""
        import torch

        d = torch.where(mask, log_ratio, 0.0).clamp(-self.log_ratio_clamp, self.log_ratio_clamp)
        return {
            "mismatch_k1": -d,
            "mismatch_k3": d.exp() - 1 - d,
            "mismatch_chi2": (2 * d).exp() - 1,
        }

    def _weighed(self, log_ratio: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weights, and b[B, T]: where the band changed one."""
        import torch

        low, high = self.band
        log_ratio = torch.where(mask, log_ratio, 0.0)
        judged = token = self._exp(log_ratio)
        if self.mode.startswith("sequence"):
            row = log_ratio.sum(-1, keepdim=True)
            if self.statistic == "geometric_mean":
                row = row / mask.sum(-1, keepdim=True).clamp(min=1)
            judged = self._exp(row).expand_as(token)
        cut = ((judged < low) | (judged > high)) & mask
        if self.mode.endswith("truncate"):
            weight = judged.clamp(low, high)
        else:
            geometric = self.mode == "sequence_mask" and self.statistic == "geometric_mean"
            weight = (token if geometric else judged).masked_fill(cut, 0.0)
        return weight * mask, cut

    def _exp(self, log: Tensor) -> Tensor:
        return log.clamp(-self.log_ratio_clamp, self.log_ratio_clamp).exp()
