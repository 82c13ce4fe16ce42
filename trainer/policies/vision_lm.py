"""A vision-language model: images and tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.policies.base import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.ops.arrangement import Row

_INPUTS = {"pixel_values", "image_grid_thw"}


class VisionLM(Policy):
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL: image placeholders in the tokens, patches in
    `pixel_values` f[patches, d], their grids in `image_grid_thw` i[images, 3].

    Under `packing: shared` the images of a prompt go through the encoder once per group.
    """

    def pinned(self, row: Row) -> int:
        """Up to the last image placeholder."""
        if not row.inputs:
            return 0
        if set(row.inputs) != _INPUTS:
            raise DataError(
                f"rollouts carry {sorted(row.inputs)}; vision_lm reads {sorted(_INPUTS)}"
            )
        found = (row.tokens == self.backbone.config.image_token_id).nonzero()
        return int(found[-1]) + 1 if len(found) else len(row.tokens)

    def model_inputs(self, inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        import torch

        filled = [images for images in inputs if images]
        if not filled:
            return {}
        return {name: torch.cat([images[name] for images in filled]) for name in sorted(_INPUTS)}

    def patches(self, inputs: dict[str, Any]) -> int:
        return len(inputs["pixel_values"]) if inputs else 0
