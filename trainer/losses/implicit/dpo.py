"""DPO's loss on right and wrong answers to one prompt, for an implicit process-reward model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.losses.base import RowLoss

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.across import Across
    from trainer.types import Batch, Evaluation


class Dpo(RowLoss):
    """l = -log sigma(s_w - s_l), s = beta sum_t (log pi - log pi_ref), the row's return the label.

    `pairs: matched`: the k-th right answer (label above 0.5) of a group with its k-th wrong one,
    the mean over pairs; answers left over do not count (arXiv:2412.01981). The two may be in
    different micro-batches, so each row sees the other as it was before the minibatch: at equal
    weights that is the same number, and the gradients of both rows add up to the exact one.
    `pairs: mean` (verl's PRIME): every row against the mean of the rows of its group with a lower
    label (or a higher one, if its own is 0) as they were before the step; 0 stands for none. The
    mean over rows; the other side has no gradient.
    """

    beta: float = Field(0.05, gt=0)
    """Scale of the reward that the log-ratio stands for."""
    pairs: Literal["matched", "mean"] = "matched"

    @property
    def needs(self) -> frozenset[str]:
        other = "current_logprobs" if self.pairs == "matched" else "old_logprobs"
        return frozenset({"ref_logprobs", other})

    @property
    def leaves_rows_out(self) -> bool:
        return self.pairs == "matched"

    def on_minibatch(self, batch: Batch, across: Across) -> Batch:
        import torch

        from trainer.ops.implicit import opposites, other_side, row_rewards

        now = batch.old_logprobs
        if self.pairs == "matched":
            now = batch.extra["current_logprobs"]
        if now is None:
            raise ValueError("pairs: mean compares with log-probs before the step: old_logprobs")
        scores = row_rewards(now, batch.ref_logprobs, batch.mask, self.beta)
        labels, mask = batch.rewards.sum(-1), batch.mask
        if self.pairs == "mean":
            other = other_side(scores, labels, batch.group)
            side = torch.where(labels > 0, 1.0, -1.0).to(scores)
        else:
            right, wrong = opposites(labels, batch.group, batch.rollout).unbind(-1)
            other, side = torch.zeros_like(scores), torch.zeros_like(scores)
            other[right], other[wrong] = scores[wrong], scores[right]
            side[right], side[wrong] = 1.0, -1.0
            mask = mask & (side != 0)[:, None]
        found = {"other": other[:, None] * batch.mask, "side": side[:, None] * batch.mask}
        return batch.with_(mask=mask, extra=batch.extra | found)

    def of_rows(self, evaluation: Evaluation, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        from torch.nn.functional import softplus

        from trainer.ops.implicit import row_rewards
        from trainer.ops.returns import at_last_action

        mask, extra = batch.mask, batch.extra
        scores = row_rewards(evaluation.logprobs, batch.ref_logprobs, mask, self.beta)
        last = at_last_action(scores.new_ones(len(scores)), mask)
        other, side = (last * extra["other"]).sum(-1), (last * extra["side"]).sum(-1)
        loss = softplus(-side * (scores - other))
        if self.pairs == "matched":  # a pair is two rows: its value counts half in each of them
            loss = 2 * loss - loss.detach()
        return loss, {}
