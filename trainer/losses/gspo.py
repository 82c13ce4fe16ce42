"""Group sequence policy optimisation (arXiv 2507.18071): one ratio per answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainer.losses.base import Aggregation, Loss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch, Evaluation


class Gspo(Loss):
    """l_t = max(-A s, -A clip(s, 1 - clip_low, 1 + clip_high)) at every action of the row, with
    s = exp(mean over its actions of logp - logp_old): a row is clipped as a whole.

    `level: token` has the same value and the gradient s grad logp_t at each action, so that A may
    differ between actions; with one A per row both have the same gradient under
    `seq_mean_token_mean`. Other aggregations weigh a row by its length, on purpose only in
    `seq_length_weighted` (LUSPO). A row without actions has s = 1 and no loss. KL terms and `tis`
    stay per action and never enter s.
    """

    zero_advantage_is_zero_gradient: ClassVar[bool] = True

    level: Literal["sequence", "token"] = "sequence"
    """Where the gradient goes: through the mean of the row, or to each action by itself."""
    ratio: Literal["geometric_mean", "product"] = "geometric_mean"
    """`product` drops the division by the length: the ratio of the whole answer, as in TRL's RLOO
    (which clips it at 0.2)."""
    clip_low: float = Field(3e-4, gt=0, le=1)
    """About 1000 times smaller than PPO's: a geometric mean hardly moves. 15 % of rows clipped is
    usual."""
    clip_high: float = Field(4e-4, gt=0)
    log_ratio_max: float = Field(10.0, gt=0)
    """Upper bound of log s before exp (verl)."""
    aggregation: Aggregation = "seq_mean_token_mean"
    """The only one in verl."""

    def __call__(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from trainer.ops.filled import filled
        from trainer.ops.surrogate import clipped_surrogate, log_ratio, row_mean

        logprobs, each = evaluation.logprobs, log_ratio(evaluation, batch)
        product = self.ratio == "product"
        row = each.sum(-1, keepdim=True) if product else row_mean(each, batch.mask)
        if self.level == "token":
            row = logprobs - logprobs.detach() + row.detach()
        return clipped_surrogate(
            row.expand_as(logprobs).clamp(max=self.log_ratio_max),
            filled(batch.advantages, "advantages"),
            clip_low=self.clip_low,
            clip_high=self.clip_high,
        )
