"""Outcome and process rewards in one advantage (PRIME, arXiv:2502.01456)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Prime(Advantage):
    """A = whiten(w_p G_p + w_o G_o): returns-to-go of the process rewards r[i, t] in
    `Batch.extra["process_rewards"]` and of the outcome o_i, the row's return, at its last action.

    K = rows of the group, c_i = mean of r over the actions of row i:
    `rloo`       r' = r K / (K - 1) - sum_j c_j / (K - 1) at every action; o' = o_i - mean of the
                 other rows' o, at the last action; G are the discounted sums of r' and o'.
    `reinforce`  r' = r, o' = o.
    `grpo`       r' = (r - mean_j c_j) / (std_j c_j + eps); o' = (o_i - mean o) / (std o + eps) on
                 every action, undiscounted; std with ddof 1, equal values give 0.
    `gae`        generalised advantage estimation over w_p r + w_o o, with a critic.

    Process rewards of 0 give the outcome's advantage alone. A group that faults have left with one
    row has no baseline (`rloo`): its advantages are 0, and do not count in the whitening. Raises
    ValueError where every group is of one row.
    """

    estimator: Literal["rloo", "reinforce", "grpo", "gae"] = "rloo"
    baseline: Literal["code", "paper"] = "code"
    """Of the process rewards in `rloo`. `code`: as above, which also scales r by K / (K - 1).
    `paper` (equation 5): r' = r - mean of the other rows' c_j."""
    process_weight: float = Field(1.0, ge=0)
    """w_p. verl has 5 and 5, the paper's code 1 and 1: with whitening only the ratio counts."""
    outcome_weight: float = Field(1.0, ge=0)
    """w_o"""
    process_gamma: float = Field(1.0, ge=0, le=1)
    """Discount of process rewards per action; also that of `gae`."""
    outcome_gamma: float = Field(1.0, ge=0, le=1)
    """Discount of the outcome per action (`rloo`, `reinforce`)."""
    lam: float = Field(1.0, ge=0, le=1)
    """lambda of `gae`."""
    eps: float = Field(1e-6, ge=0)
    """Added to the deviations of `grpo`."""
    whiten: bool = True
    """(A - mean) / sqrt(var + 1e-8) over all actions of the step, var unbiased."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"values"} if self.estimator == "gae" else ())

    @property
    def crosses_groups(self) -> bool:
        return self.whiten

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.masked import group_count
        from trainer.ops.returns import whiten

        counted = batch.mask
        if self.estimator == "rloo":
            alone = group_count(batch.group) == 1
            if bool(alone.all()) and bool(counted.any()):
                raise ValueError(
                    "advantage: prime with rloo compares the answers to one prompt, and there is "
                    "one of each: set rollouts.group_size to 2 or more, or estimator: reinforce"
                )
            counted = counted & ~alone[:, None]
        found = self._estimate(batch) * counted
        if self.whiten:
            found = whiten(found, counted * batch.weight)
        return found.float()

    def returns(self, batch: Batch) -> Tensor | None:
        if self.estimator != "gae" or batch.values is None:
            return None
        return ((self._estimate(batch) + batch.values.double()) * batch.mask).float()

    def _estimate(self, batch: Batch) -> Tensor:
        """[B, T], double."""
        from trainer.ops.returns import at_last_action, gae, reward_to_go

        mask, process = batch.mask, _process(batch)
        outcome = batch.rewards.double().sum(-1)
        w_p, w_o = self.process_weight, self.outcome_weight
        if self.estimator == "gae":
            if batch.values is None:
                raise ValueError("advantage: prime with gae needs values: add `critic: {}`")
            rewards = w_p * process + w_o * batch.rewards.double()
            return gae(rewards, batch.values, mask, self.process_gamma, self.lam)
        if self.estimator == "rloo":
            process, outcome = self._left_out(process, outcome, batch)
        elif self.estimator == "grpo":
            process, outcome = self._scaled(process, outcome, batch)
            flat = outcome[:, None] * mask
            return w_p * reward_to_go(process, mask, self.process_gamma) + w_o * flat
        ends = reward_to_go(at_last_action(outcome, mask), mask, self.outcome_gamma)
        return w_p * reward_to_go(process, mask, self.process_gamma) + w_o * ends

    def _left_out(self, process: Tensor, outcome: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        from trainer.ops.masked import group_centred, group_count, group_mean, masked_mean

        size = group_count(batch.group).double()
        others = (size - 1).clamp(min=1)
        row = masked_mean(process, batch.mask, -1)
        total = group_mean(row, batch.group) * size
        if self.baseline == "paper":
            centred = process - ((total - row) / others)[:, None]
        else:
            centred = process * (size / others)[:, None] - (total / others)[:, None]
        return centred * batch.mask, group_centred(outcome, batch.group) * size / others

    def _scaled(self, process: Tensor, outcome: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        from trainer.ops.masked import group_centred, group_mean, group_std, masked_mean

        row = masked_mean(process, batch.mask, -1)
        centre, std = group_mean(row, batch.group), group_std(row, batch.group)
        scaled = (process - centre[:, None]) / (std + self.eps)[:, None]
        scaled = scaled.masked_fill(((std == 0)[:, None]) | ~batch.mask, 0.0)
        centred = group_centred(outcome, batch.group)
        right = centred / (group_std(outcome, batch.group) + self.eps)
        return scaled, right.masked_fill(centred == 0, 0.0)


def _process(batch: Batch) -> Tensor:
    found = batch.extra.get("process_rewards")
    if found is None:
        raise ValueError(
            "advantage: prime needs process rewards, and this batch has none: set "
            "reward: {type: model/implicit_prm, outcome: ...}, or advantage: rloo"
        )
    return found.double() * batch.mask
