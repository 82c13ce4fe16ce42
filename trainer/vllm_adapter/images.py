"""Images that the renderer has already turned into patches, as vLLM takes them."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.weak import WeakIdKeyDictionary
from vllm.entrypoints.scale_out.token_in_token_out.mm_serde import encode_mm_kwargs_item
from vllm.inputs import mm_input
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)


@dataclass(eq=False, slots=True)
class Images:
    """Those of one prompt, and which servers have them."""

    token: int
    """The placeholder."""
    items: list[MultiModalKwargsItem]
    hashes: list[str]
    """Of their content: what vLLM knows them by."""
    lengths: list[int]
    """Placeholders of each."""
    _there: set[object] = field(default_factory=set)
    _turns: dict[object, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def prompt(self, tokens: list[int]) -> Any:
        """Engine input: patches are handed over, nothing is processed twice."""
        ranges = [PlaceholderRange(offset=start, length=n) for start, n in self._places(tokens)]
        found = MultiModalKwargsItems({"image": list(self.items)})
        return mm_input(tokens, found, {"image": self.hashes}, {"image": ranges})

    def features(self, tokens: list[int], *, named: bool) -> dict[str, Any]:
        """`features` of a server's `GenerateRequest`; `named`: without the patches, for a server
        that has them."""
        ranges = [{"offset": start, "length": n} for start, n in self._places(tokens)]
        data = [None if named else encode_mm_kwargs_item(item) for item in self.items]
        return {
            "mm_hashes": {"image": self.hashes},
            "mm_placeholders": {"image": ranges},
            "kwargs_data": {"image": data},
        }

    async def bring(self, server: object, send: Callable[[], Awaitable[Any]]) -> None:
        """Calls `send` if the server does not have them. Others that bring them there meanwhile
        wait, and try themselves if it fails."""
        async with self._turns[server]:
            if server not in self._there:
                await send()
                self._there.add(server)

    def lost(self, server: object) -> None:
        """The server does not know them any more."""
        self._there.discard(server)

    def _places(self, tokens: list[int]) -> list[tuple[int, int]]:
        """(offset, length) of each one's placeholders."""
        places, at = [], 0
        for length in self.lengths:
            at = tokens.index(self.token, at)
            places.append((at, length))
            at += length
        return places


class Packer:
    """Packs the images of a prompt once: members of a group have the very same tensors."""

    def __init__(self, config: Any):
        """`config` of transformers; images need that of a Qwen-VL model."""
        self._config = config
        self._known = WeakIdKeyDictionary()

    def images(self, inputs: dict[str, Any]) -> Images:
        grid, pixels = inputs["image_grid_thw"], inputs["pixel_values"]
        if (known := self._known.get(pixels)) is not None:
            return known
        patches, own = grid.prod(-1), pixels.detach()  # views of `pixels` would keep it for ever
        fields = {
            "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", patches),
            "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }
        items = MultiModalKwargsItems.from_hf_inputs(
            {"pixel_values": own, "image_grid_thw": grid},  # type: ignore[arg-type]
            fields,
        )["image"]
        hashes = [
            hashlib.blake2b(part.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
            for part in own.split(patches.tolist())
        ]
        lengths = (patches // self._config.vision_config.spatial_merge_size**2).tolist()
        token = self._config.image_token_id
        found = self._known[pixels] = Images(token, list(items), hashes, lengths)
        return found
