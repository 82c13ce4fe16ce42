"""REINFORCE: the score function without a ratio (Williams 1992)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Reinforce(Loss):
    """l = -A logp.

    RAFT's `vanilla` (arXiv 2504.11343); with one update per batch it has the gradient of every
    clipped loss, so also GRPO's. With `aggregation: seq_mean_token_sum` it is RLOO's
    -A sum_t logp (arXiv 2402.14740). Nothing corrects for stale samples: add the modifier `tis`,
    or take `cispo`, which is this loss times a bounded ratio. The value of the loss is no measure
    of progress.
    """

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.filled import filled

        advantages = filled(batch.advantages, "advantages")
        return -advantages * evaluation.logprobs, {"logprob": evaluation.logprobs.detach()}
