"""Beta normalisation policy optimisation (BNPO, arXiv 2506.02864)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Bnpo(Advantage):
    """A[i, t] = w (R_i - p), p the mean of the group, w = clamp(1 / BetaPdf(p; alpha, beta)).

    alpha = max(1 + a / 3, 1), beta = max(1 + b / 3, 1), with a = k mu, b = k (1 - mu) and
    k = mu (1 - mu) / var - 1 fitted to the p of all prompts of the step: mu their mean, var their
    unbiased variance. One prompt, or the same p everywhere: w = 1. Groups of equal returns give
    exactly 0. R must lie in [low, high] and is rescaled to [0, 1].
    """

    crosses_groups: ClassVar[bool] = True

    low: float = Field(0.0, allow_inf_nan=False)
    high: float = Field(1.0, allow_inf_nan=False)
    """Worst and best reward that can be earned."""
    max_weight: float = Field(1e6, gt=0)
    parts: tuple[str, ...] = ()
    """Advantage decomposition: one BNPO for each of these parts of the score, summed, instead of
    one of the return. A row whose part is None has none of it."""

    @model_validator(mode="after")
    def _ordered(self) -> Bnpo:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be under high {self.high}")
        return self

    def __call__(self, batch: Batch) -> Tensor:
        if not self.parts:
            return self._spread(self._of(batch.rewards.double().sum(-1), batch.group), batch)
        if missing := [name for name in self.parts if name not in batch.parts]:
            raise ValueError(
                f"advantage.parts: no part {', '.join(missing)} in the scores; they have: "
                f"{', '.join(sorted(batch.parts)) or 'none'}"
            )
        total = batch.rewards.new_zeros(len(batch.group)).double()
        for name in self.parts:
            values = batch.parts[name].double()
            there = ~values.isnan()
            if there.any():
                total[there] += self._of(values[there], batch.group[there])
        return self._spread(total, batch)

    @staticmethod
    def _spread(by_row: Tensor, batch: Batch) -> Tensor:
        return (by_row[:, None] * batch.mask).float()

    def _of(self, returns: Tensor, group: Tensor) -> Tensor:
        """[n]: the advantage of each row."""
        from trainer.ops.masked import group_centred, group_mean

        scaled = (returns - self.low) / (self.high - self.low)
        if bool(((scaled < -1e-6) | (scaled > 1 + 1e-6)).any()):
            raise ValueError(
                f"advantage: bnpo takes rewards in [{self.low:g}, {self.high:g}], and found "
                f"{returns.min():g} to {returns.max():g}: set advantage.low and advantage.high"
            )
        mean, centred = group_mean(scaled, group), group_centred(scaled, group)
        weighed = self._weight(mean, group) * centred
        return weighed.masked_fill(centred == 0, 0.0)

    def _weight(self, mean: Tensor, group: Tensor) -> Tensor:
        """[n]: 1 / density, from the mean [n] of each row's group."""
        import torch

        from trainer.ops.masked import group_index

        index, groups = group_index(group)
        rates = mean.new_zeros(groups).index_copy_(0, index, mean).clamp(0, 1)
        if groups < 2 or bool((rates == rates[0]).all()):
            return torch.ones_like(mean)
        mu, variance = rates.mean(), rates.var()
        k = mu * (1 - mu) / variance - 1
        alpha, beta = (1 + k * mu / 3).clamp(min=1), (1 + k * (1 - mu) / 3).clamp(min=1)
        density = (
            torch.lgamma(alpha + beta)
            - torch.lgamma(alpha)
            - torch.lgamma(beta)
            + torch.xlogy(alpha - 1, rates)
            + torch.xlogy(beta - 1, 1 - rates)
        ).exp()
        return (1 / density).clamp(0, self.max_weight)[index]
