"""Contract of `advantage:`: pure, [B, T] in, [B, T] out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.types import Batch


class Advantage(Plugin):
    family: ClassVar[str] = "trainer.advantages"
    needs: ClassVar[frozenset[str]] = frozenset()
    """Batch fields that must be filled first, e.g. {"values", "ref_logprobs"}."""
    crosses_groups: ClassVar[bool] = False
    """True where a row's advantage depends on rows of other groups (deviation of the whole batch,
    whitening): the learner then hands over the rows of all processes, without model inputs. May
    be a property where it depends on the fields."""

    needs_baseline: ClassVar[bool] = False
    """True where the part `greedy` must be there: an agent with `gives_baseline` makes it."""

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T], 0 outside the action mask. Rows hold scored rollouts only; a group may be
        smaller than the recipe's group size."""
        raise NotImplementedError

    def returns(self, batch: Batch) -> Tensor | None:
        """[B, T]: what a critic should have predicted, 0 outside the action mask; fills
        `Batch.returns`. None: no critic. A row's returns depend on that row alone."""
        return None
