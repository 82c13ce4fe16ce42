"""Data inside an HTML file: gzip in base64, in pieces that the browser unpacks when needed."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any, TextIO


class Chunks:
    """Writes numbered pieces of about `size` bytes, each a JSON list, under a name: `text0`, ..."""

    def __init__(self, file: TextIO, name: str, size: int):
        self._file, self._name, self._size = file, name, size
        self._items: list[str] = []
        self._held = 0
        self.count = 0

    def add(self, item: Any) -> tuple[int, int]:
        """(piece, place in it) of the item."""
        if self._held >= self._size:
            self.flush()
        text = compact(item)
        self._items.append(text)
        self._held += len(text)
        return self.count, len(self._items) - 1

    def flush(self) -> None:
        """Writes what is held as one piece."""
        if self._items:
            write_chunk(self._file, f"{self._name}{self.count}", f"[{','.join(self._items)}]")
            self.count += 1
            self._items, self._held = [], 0


def write_chunk(file: TextIO, name: str, text: str) -> None:
    """One piece as an element that the browser neither runs nor shows."""
    packed = gzip.compress(text.encode("utf-8", "surrogatepass"), compresslevel=6, mtime=0)
    file.write(
        f'<script type="text/plain" id="{name}">{base64.b64encode(packed).decode()}</script>\n'
    )


def compact(value: Any) -> str:
    """JSON without spaces; numbers that are not finite become null."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        return compact(_finite(value))


def rounded(value: Any, digits: int = 5) -> Any:
    """A number with so many significant digits; null if it is not finite or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
