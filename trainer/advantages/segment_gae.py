"""Generalised advantage estimation over turns or steps instead of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainer.advantages.base import Advantage

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class SegmentGae(Advantage):
    """A turn is one action: delta_u = r_u + gamma V_{u+1} - V_u, A_u = delta_u + gamma lam A_{u+1},
    and every token of turn u has A_u.

    r_u are all rewards from the first token of the turn up to the next turn, so a tool's reward
    belongs to the turn that called it; V_u is the value before the turn's first token; after the
    last turn V is 0. The critic's target A_u + V_u, before whitening, is given to every token of
    the turn. After VL-DAC (turns).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"values"})

    level: Literal["turn", "step"] = "turn"
    """`step`: the steps that the reward marked; actions after the last one are one more step."""
    gamma: float = Field(1.0, ge=0, le=1)
    """Per turn or step."""
    lam: float = Field(0.95, ge=0, le=1)
    whiten: bool = False
    """As in `gae`: over all actions of the step, so that long turns weigh more."""

    @property
    def crosses_groups(self) -> bool:
        return self.whiten

    def __call__(self, batch: Batch) -> Tensor:
        from trainer.ops.returns import whiten
        from trainer.ops.segments import spread

        segment = self._segment(batch)
        found = spread(self._estimate(batch, segment)[0], segment, batch.mask)
        if self.whiten:
            found = whiten(found, batch.mask * batch.weight)
        return found.float()

    def returns(self, batch: Batch) -> Tensor:
        from trainer.ops.segments import spread

        segment = self._segment(batch)
        advantages, values = self._estimate(batch, segment)
        return spread(advantages + values, segment, batch.mask).float()

    def _segment(self, batch: Batch) -> Tensor:
        from trainer.ops.segments import step_segments, turn_segments

        return turn_segments(batch) if self.level == "turn" else step_segments(batch)

    def _estimate(self, batch: Batch, segment: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages and values, [B, U]."""
        from trainer.ops.returns import gae
        from trainer.ops.segments import firsts, present, sums

        if batch.values is None:
            raise ValueError(
                "advantage: segment_gae needs values, and this batch has none: choose a policy "
                "with a value head, or an advantage without a critic (turn_level)"
            )
        there = present(segment, batch.mask)
        values = firsts(batch.values, segment, batch.mask, there.shape[1])
        rewards = sums(batch.rewards, segment, there.shape[1])
        return gae(rewards, values, there, self.gamma, self.lam), values
