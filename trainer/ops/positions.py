"""Rotary position ids of a token path: one row of them for text, three for Qwen's vision models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainer.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


def prompt_positions(model: Any, tokens: Sequence[int] | Tensor, inputs: dict[str, Any]) -> Tensor:
    """i[k, n] position ids of `tokens`, on the CPU; k is 1 for text models, 3 (time, height,
    width) for models with multimodal rotary positions (Qwen2-VL, Qwen2.5-VL, Qwen3-VL).

    `model` is the transformers model with its head. `tokens` may go on after the prompt: text
    counts on from the largest id of the images before it. Raises DataError if the image
    placeholders in `tokens` are not the ones that `inputs["image_grid_thw"]` fills.
    """
    rope_index = getattr(getattr(model, "model", None), "get_rope_index", None)
    if rope_index is None:
        return torch.arange(len(tokens))[None]
    ids = torch.as_tensor(tokens, dtype=torch.long, device="cpu")
    is_image: Tensor = ids == model.config.image_token_id
    grid = inputs.get("image_grid_thw")
    if grid is not None:
        grid = grid.to("cpu")
    _check_placeholders(model, int(is_image.sum()), grid)
    positions, _ = rope_index(
        ids[None], mm_token_type_ids=is_image.int()[None], image_grid_thw=grid
    )
    return positions[:, 0]


def continue_positions(positions: Tensor, n: int) -> Tensor:
    """i[k, n] ids of `n` text tokens after `positions` i[k, m]: largest id + 1, + 2, ... alike in
    all k. `positions` may be empty: then 0, 1, ..."""
    start = int(positions.max()) + 1 if positions.numel() else 0
    steps = torch.arange(start, start + n, device=positions.device)
    return steps.expand(positions.shape[0], n)


def _check_placeholders(model: Any, found: int, grid: Tensor | None) -> None:
    merge = model.config.vision_config.spatial_merge_size**2
    wanted = 0 if grid is None else int((grid.prod(-1) // merge).sum())
    if found != wanted:
        raise DataError(
            f"a row has {found} image placeholder tokens (id {model.config.image_token_id}) but "
            f"its images fill {wanted}; was the text cut, or did the policy sample a placeholder?"
        )
