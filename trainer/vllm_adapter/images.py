"""Images that the renderer has already turned into patches, as vLLM takes them."""

from __future__ import annotations

import hashlib
from typing import Any

from vllm.entrypoints.scale_out.token_in_token_out.mm_serde import encode_mm_kwargs_item
from vllm.inputs import mm_input
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PlaceholderRange,
)


def multimodal_prompt(config: Any, tokens: list[int], inputs: dict[str, Any]) -> Any:
    """Engine input of Qwen-VL models: patches are handed over, nothing is processed twice."""
    hf = config.hf_config
    merge = hf.vision_config.spatial_merge_size
    items, hashes, places = _items(tokens, inputs, hf.image_token_id, merge)
    ranges = [PlaceholderRange(offset=start, length=length) for start, length in places]
    found = MultiModalKwargsItems({"image": items})
    return mm_input(tokens, found, {"image": hashes}, {"image": ranges})


class Packer:
    """The same for a server, as the `features` of its `GenerateRequest`. Members of a group have
    the very same tensors: their images are packed once."""

    def __init__(self, config: Any):
        """`config` of transformers."""
        self._token, self._merge = config.image_token_id, config.vision_config.spatial_merge_size
        self._last: tuple[Any, dict[str, Any]] = (None, {})

    def features(self, tokens: list[int], inputs: dict[str, Any]) -> dict[str, Any]:
        pixels, packed = self._last
        if pixels is not inputs["pixel_values"]:
            items, hashes, places = _items(tokens, inputs, self._token, self._merge)
            ranges = [{"offset": start, "length": length} for start, length in places]
            packed = {
                "mm_hashes": {"image": hashes},
                "mm_placeholders": {"image": ranges},
                "kwargs_data": {"image": [encode_mm_kwargs_item(item) for item in items]},
            }
            self._last = (inputs["pixel_values"], packed)
        return packed


def _items(
    tokens: list[int], inputs: dict[str, Any], image_token: int, merge: int
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
    lengths = (patches // merge**2).tolist()
    places, at = [], 0
    for length in lengths:
        at = tokens.index(image_token, at)
        places.append((at, length))
        at += length
    return list(items), hashes, places
