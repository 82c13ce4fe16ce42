"""Weighted negative log-likelihood: supervised fine-tuning, and REINFORCE without a ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Nll(Loss):
    """l = -A logp. With `advantage: identity` (A = 1) it is plain supervised fine-tuning, with a
    group-relative advantage it is REINFORCE."""

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return -batch.advantages * evaluation.logprobs, {"nll": -evaluation.logprobs.detach()}
