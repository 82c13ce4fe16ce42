"""Pictures to unit vectors, by a frozen vision model that transformers loads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainer.errors import ConfigError
from trainer.ops.image_similarity import on_white
from trainer.plugin import Frozen

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class ImageEncoder(Frozen):
    """e(picture) = pooled features, divided by their length. DINOv2 (arXiv:2304.07193) and other
    vision models that pool; CLIP and SigLIP by their image features."""

    path: str = Field(min_length=1)
    """Name on the Hub (`facebook/dinov2-base`, `openai/clip-vit-base-patch32`), or a folder."""
    revision: str | None = None
    pooling: Literal["own", "first", "mean"] = "own"
    """`own`: the model's pooled output, with the projection that CLIP was trained with; `first` or
    `mean` of the last hidden state, for a model that was saved without a pooler."""
    batch_size: int = Field(16, gt=0)
    """Pictures per forward pass: memory only."""
    device: str = "cpu"

    async def open(self) -> OpenImageEncoder:
        """Raises ConfigError if it cannot be loaded, lacks weights, or has no image processor that
        works on Pillow images: torchvision is not used, so its versions never change a reward."""
        return await asyncio.to_thread(self._load)

    def _load(self) -> OpenImageEncoder:
        from transformers import AutoImageProcessor, AutoModel

        options: dict[str, Any] = {"revision": self.revision or "main"}
        try:
            loaded: Any = AutoModel.from_pretrained(self.path, output_loading_info=True, **options)
        except (OSError, ValueError) as error:
            raise self._wrong(f"cannot read {self.path!r}: {error}") from error
        try:
            processor = AutoImageProcessor.from_pretrained(self.path, backend="pil", **options)
        except (OSError, ValueError, ImportError) as error:
            raise self._wrong(
                f"{self.path!r} has no image processor that works without torchvision; choose a "
                f"model that has one, such as facebook/dinov2-base ({error})"
            ) from error
        model, info = loaded
        needed = [
            name
            for name in info["missing_keys"]
            if self.pooling == "own" or not name.startswith("pooler.")
        ]
        if needed:
            fix = "; pooling: first or mean does without" if needed[0].startswith("pooler.") else ""
            raise self._wrong(f"{self.path!r} was saved without {sorted(needed)[0]}{fix}")
        return OpenImageEncoder(
            self, processor, model.float().eval().requires_grad_(False).to(self.device)
        )

    @staticmethod
    def _wrong(reason: str) -> ConfigError:
        return ConfigError(f"scoring.image_encoder.path: {reason}")


class OpenImageEncoder:
    """What `ImageEncoder.open` gives. Calls wait for each other."""

    def __init__(self, config: ImageEncoder, processor: Any, model: Any):
        self.config = config
        self._processor, self._model = processor, model
        self._turn = asyncio.Lock()

    async def embed(self, images: Sequence[Image]) -> list[list[float]]:
        """One vector of length 1 per picture, in order; transparent parts are white. Equal pictures
        have equal vectors; the others of a call never change the result beyond rounding. The
        model's processor decides on size and crop: many keep the square in the middle only."""
        async with self._turn:
            return await asyncio.to_thread(self._embed, images)

    def _embed(self, images: Sequence[Image]) -> list[list[float]]:
        plain = [on_white(image) for image in images]
        keys = [(image.size, image.tobytes()) for image in plain]
        different = dict(zip(keys, plain, strict=True))
        shown, size = list(different.values()), self.config.batch_size
        found: list[list[float]] = []
        for start in range(0, len(shown), size):
            found += self._batch(shown[start : start + size]).tolist()
        vectors = dict(zip(different, found, strict=True))
        return [list(vectors[key]) for key in keys]

    def _batch(self, images: Sequence[Image]) -> Tensor:
        import torch

        fed = self._processor(images=list(images), return_tensors="pt").to(self.config.device)
        with torch.no_grad():
            if hasattr(self._model, "get_image_features"):
                seen = self._model.get_image_features(**fed)
            else:
                seen = self._model(**fed)
        vectors = self._pooled(seen).double()
        return torch.nn.functional.normalize(vectors, dim=-1).cpu()

    def _pooled(self, seen: Any) -> Tensor:
        how = self.config.pooling
        found = seen.get("pooler_output" if how == "own" else "last_hidden_state")
        if found is None or (how != "own" and found.ndim != 3):
            raise ConfigError(
                f"scoring.image_encoder.pooling: {how} does not fit {self.config.path!r}; take "
                "another pooling, or a vision transformer such as facebook/dinov2-base"
            )
        if how == "own":
            return found.flatten(1)  # convolutional nets keep two sides of 1
        return found[:, 0] if how == "first" else found.mean(1)
