"""Group-relative advantages of turns, alone or with those of whole answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class TurnLevel(Advantage):
    """A[i, t] = turn_weight A_turn[i, u] + answer_weight A_answer[i] for the actions t of turn u.

    r[i, u] are the rewards from the first token of turn u up to the next turn.
    `compare: pool`: z = r standardised over all turns of all rows of the group together, then
    A_turn[i, u] = sum over v >= u of gamma^(v - u) z[i, v] (IGPO; with gamma 0 iStar).
    `compare: same_turn`: D[i, u] = sum over v >= u of gamma^(v - u) r[i, v], then A_turn = D
    standardised over the rows of the group that have a turn u (MatchTIR; with gamma 0 CM2).
    A_answer is the row's return, standardised over the group in the same way.

    Equal values give exactly 0, and so does a group of one. A turn that rows share counts once in
    a pool.
    """

    compare: Literal["pool", "same_turn"] = "pool"
    scale: Literal["std", "none", "leave_one_out"] = "std"
    """After the mean is taken off: divide by the standard deviation (ddof 1) + eps, leave it, or
    multiply by n / (n - 1)."""
    gamma: float = Field(1.0, ge=0, le=1)
    """Per turn."""
    eps: float = Field(1e-6, ge=0)
    turn_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    answer_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    """MatchTIR: 0.5 and 0.5; iStar: 1 and 1."""
    outcome: Literal["last_turn", "answer"] = "last_turn"
    """Where the outcome (`Score.value`) belongs: to the last turn and so to the return, or to
    A_answer alone, which then does not count turn rewards (iStar)."""
    least_rows: int = Field(2, gt=0)
    """`same_turn`: a turn that fewer rows have gives 0 (CM2: 5)."""
    alone: Literal["zero", "raw"] = "zero"
    """`same_turn`: what a turn that one row has gives; `raw`: D itself (MatchTIR). `raw` comes
    before `least_rows`."""

    def __call__(self, batch: Batch) -> Tensor:
        import torch

        from trainer.ops.process import refuse_penalties, split_rewards, standard_scores
        from trainer.ops.segments import present, spread, sums, turn_segments

        segment = turn_segments(batch)
        there = present(segment, batch.mask)
        process, outcome, _ = split_rewards(batch)
        if self.outcome == "answer":
            refuse_penalties(batch, "turn_level with outcome: answer")
            rewards, answer = process, outcome
        else:
            rewards = batch.rewards.double()
            answer = rewards.sum(-1)
        turns = self._turns(sums(rewards, segment, there.shape[1]), there, batch)
        found = self.turn_weight * spread(turns, segment, batch.mask)
        if self.answer_weight:
            alike = torch.ones_like(answer)
            whole = standard_scores(answer, batch.group, alike, self.eps, scale=self.scale)
            found = found + self.answer_weight * whole[:, None] * batch.mask
        return found.float()

    def _turns(self, rewards: Tensor, there: Tensor, batch: Batch) -> Tensor:
        """A_turn, [B, U]."""
        import torch

        from trainer.ops.masked import group_count
        from trainer.ops.process import standard_scores
        from trainer.ops.returns import reward_to_go
        from trainer.ops.segments import firsts, turn_segments

        row, turn = there.nonzero(as_tuple=True)
        found = torch.zeros_like(rewards)
        if not len(row):
            return found
        if self.compare == "pool":
            share = firsts(batch.weight, turn_segments(batch), batch.mask, there.shape[1])
            scaled = standard_scores(
                rewards[there], batch.group[row], share[there], self.eps, scale=self.scale
            )
            found[there] = scaled
            return reward_to_go(found, there, self.gamma)
        later = reward_to_go(rewards, there, self.gamma)[there]
        peers = batch.group[row] * there.shape[1] + turn
        scaled = standard_scores(later, peers, torch.ones_like(later), self.eps, scale=self.scale)
        count = group_count(peers)
        scaled = scaled.masked_fill(count < self.least_rows, 0.0)
        if self.alone == "raw":
            scaled = torch.where(count == 1, later, scaled)
        found[there] = scaled
        return found
