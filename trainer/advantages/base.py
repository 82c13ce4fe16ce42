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

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T], 0 outside the action mask. Rows hold scored rollouts only; a group may be
        smaller than the recipe's group size."""
        raise NotImplementedError
