"""A language model: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.policies.base import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.arrangement import Row


class CausalLM(Policy):
    """Any transformers `...ForCausalLM`."""

    def pinned(self, row: Row) -> int:
        if row.inputs:
            raise DataError(
                f"rollouts carry {sorted(row.inputs)}, which a language model cannot read; set "
                "policy: vision_lm"
            )
        return 0

    def model_inputs(self, inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return {}

    def patches(self, inputs: dict[str, Any]) -> int:
        return 0
