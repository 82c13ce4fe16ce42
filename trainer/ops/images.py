"""Images as data sets hold them, read into memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.errors import DataError

_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # as Pillow raises them


def load_image(value: Any, folder: Path, where: str) -> Image.Image:
    """An RGB image from a path (relative to `folder`), encoded bytes, datasets' `{bytes, path}`,
    or a PIL image. Raises DataError that starts with `where`, for instance "train.jsonl:7"."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image):
        image, name = value, "the image"
    elif isinstance(value, (bytes, bytearray, memoryview)):
        name = f"an image of {len(value)} bytes"
        image = _opened(io.BytesIO(value), where, name)
    elif isinstance(value, (str, Path)):
        path = folder / value
        name = str(path)
        if not path.is_file():
            raise DataError(f"{where}: there is no image {name}; paths are relative to {folder}")
        image = _opened(path, where, name)
    else:
        raise DataError(
            f"{where}: an image must be a path, bytes, {{bytes, path}} or a PIL image, "
            f"got {type(value).__name__}"
        )
    try:
        return image.convert("RGB")  # decodes: a truncated file shows only here
    except _BROKEN as error:
        raise DataError(f"{where}: {name} is broken: {error}") from error


def without_pixels(value: Any) -> Any:
    """`value` without what holds pixels or encoded files: None in their place, paths stay."""
    if isinstance(value, (bytes, bytearray, memoryview, Image.Image)):
        return None
    if isinstance(value, dict):
        return {key: without_pixels(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_pixels(inner) for inner in value]
    return value


def _opened(source: Path | io.BytesIO, where: str, name: str) -> Image.Image:
    try:
        return Image.open(source)
    except _BROKEN as error:
        raise DataError(f"{where}: {name} is not an image: {error}") from error
