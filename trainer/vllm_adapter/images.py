"""Images that the renderer has already turned into patches, as vLLM takes them."""

from __future__ import annotations

import hashlib
from typing import Any

from vllm.inputs import mm_input
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PlaceholderRange,
)


def multimodal_prompt(config: Any, tokens: list[int], inputs: dict[str, Any]) -> Any:
    """Engine input of Qwen-VL models: patches are handed over, nothing is processed twice."""
    hf = config.hf_config
    items, hashes, places = image_items(tokens, inputs, hf.image_token_id, hf.vision_config)
    ranges = [PlaceholderRange(offset=start, length=length) for start, length in places]
    items = MultiModalKwargsItems({"image": items})
    return mm_input(tokens, items, {"image": hashes}, {"image": ranges})


def image_items(
    tokens: list[int], inputs: dict[str, Any], image_token: int, vision: Any
) -> tuple[list[Any], list[str], list[tuple[int, int]]]:
    """Per image: vLLM's item, a hash of its content, and (offset, length) of its placeholders."""
    grid, pixels = inputs["image_grid_thw"], inputs["pixel_values"]
    patches = grid.prod(-1)
    fields = {
        "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", patches),
        "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    items = MultiModalKwargsItems.from_hf_inputs(inputs, fields)["image"]  # type: ignore[arg-type]
    hashes = [
        hashlib.blake2b(part.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        for part in pixels.split(patches.tolist())
    ]
    lengths = (patches // vision.spatial_merge_size**2).tolist()
    places, at = [], 0
    for length in lengths:
        at = tokens.index(image_token, at)
        places.append((at, length))
        at += length
    return list(items), hashes, places
