"""Numbers of tokens and pictures, small enough to be logged by the thousand.

A packed column is one number if all values are equal, else {"scale": s, "data": base64 of i16,
little-endian}: value = s * i, so the error is at most s / 2 = largest |value| / 65534. -32768
stands for a value that is not finite. Ends of tokens are packed as lengths: base64 of u8, where
255 means "255 and what follows".
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

Packed = float | dict[str, Any]

_LARGEST, _MISSING = 32767, -32768
_LOSSLESS = 128 * 128
"""Pixels up to which a picture is kept exactly: there it costs less than blur would."""


def pack(values: Sequence[float] | np.ndarray) -> Packed:
    """[n] numbers as a packed column; 0.0 for none."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return 0.0
    finite = np.isfinite(array)
    if finite.all() and (array == array[0]).all():
        return float(f"{array[0]:.6g}")
    whole = np.where(finite, array, 0.0)
    scale = float(np.abs(whole).max()) / _LARGEST or 1.0
    ints = np.where(finite, np.rint(whole / scale), _MISSING).astype("<i2")
    return {"scale": float(f"{scale:.9g}"), "data": base64.b64encode(ints.tobytes()).decode()}


def unpack(packed: Packed, count: int) -> list[float]:
    """The `count` numbers of a packed column; NaN where a value was not finite."""
    if not isinstance(packed, dict):
        return [float(packed)] * count
    ints = np.frombuffer(base64.b64decode(packed["data"]), "<i2")
    return np.where(ints == _MISSING, np.nan, ints * packed["scale"]).tolist()


def pack_ends(ends: Sequence[int]) -> str:
    """Rising ends in characters, one per token."""
    lengths = np.diff(np.asarray(ends, dtype=np.int64), prepend=0)
    if len(lengths) and lengths.max() >= 255:
        bytes_ = b"".join(b"\xff" * (n // 255) + bytes([n % 255]) for n in lengths.tolist())
    else:
        bytes_ = lengths.astype(np.uint8).tobytes()
    return base64.b64encode(bytes_).decode()


def unpack_ends(packed: str) -> list[int]:
    """Undoes `pack_ends`."""
    ends, end = [], 0
    for length in base64.b64decode(packed):
        end += length
        if length < 255:
            ends.append(end)
    return ends


def picture(image: Image.Image, side: int) -> dict[str, Any]:
    """{hash, width, height, data}: base64 of WebP, its longer side at most `side` pixels; `width`
    and `height` are those of the image before. Equal pixels give an equal hash."""
    width, height = image.size
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    exact = small.width * small.height <= _LOSSLESS
    small.save(buffer, "WEBP", quality=80, method=0, lossless=exact)
    data = buffer.getvalue()
    return {
        "hash": hashlib.sha256(data).hexdigest()[:16],
        "width": width,
        "height": height,
        "data": base64.b64encode(data).decode(),
    }
