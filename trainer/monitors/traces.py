"""Pictures and numbers of single tokens, for the page of `cohort show`."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from trainer.monitors.base import Monitor, Tracing, read_rows

if TYPE_CHECKING:
    from trainer.context import Context


class Traces(Monitor):
    """`traces.jsonl` holds a row per group, `images.jsonl` each picture once.

    Both together stay under `max_mb` x step / steps of the run at every step: what a step leaves
    unused, a later one may have, and the record thins out evenly instead of ending early.
    """

    every: int = Field(1, gt=0)
    """Steps between those that are traced."""
    groups: int = Field(32, ge=0)
    """Most groups of a step, the trained ones first; 0 traces none."""
    image_side: int = Field(448, gt=0)
    """Pictures are shrunk until their longer side has at most so many pixels."""
    max_mb: float = Field(96.0, ge=0)
    """Most megabytes (10^6 bytes) on the disk for the whole run."""

    _folder: Path = PrivateAttr()
    _steps: int = PrivateAttr()
    _known: set[str] | None = PrivateAttr(None)

    @property
    def tracing(self) -> Tracing | None:
        if not self.groups or not self.max_mb:
            return None
        return Tracing(self.every, self.groups, self.image_side)

    @asynccontextmanager
    async def open(self, context: Context, recipe: dict[str, Any]) -> AsyncIterator[None]:
        self._folder, self._steps, self._known = context.folder, context.total_steps, None
        if not context.resuming:
            for name in ("traces", "images"):
                self._path(name).unlink(missing_ok=True)
        yield

    def traces(self, step: int, traces: list[dict[str, Any]]) -> None:
        if self._known is None:  # not in `open`: a resumed run cuts its files after that
            self._known = {row["hash"] for row in read_rows(self._path("images"))}
        left = 1e6 * self.max_mb * min(1.0, step / self._steps)
        left -= sum(self._size(name) for name in ("traces", "images"))
        rows: list[bytes] = []
        pictures: list[bytes] = []
        for trace in traces:
            fresh = {p["hash"]: p for p in trace["pictures"] if p["hash"] not in self._known}
            brief = trace | {"pictures": [picture["hash"] for picture in trace["pictures"]]}
            row = _line({"step": step} | brief)
            images = [_line({"step": step} | picture) for picture in fresh.values()]
            left -= len(row) + sum(map(len, images))
            if left < 0:
                break
            rows.append(row)
            pictures += images
            self._known |= fresh.keys()
        self._append("images", pictures)  # first: a row never names a picture that is not there
        self._append("traces", rows)

    def _append(self, name: str, lines: list[bytes]) -> None:
        if lines:
            with self._path(name).open("ab") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())

    def _size(self, name: str) -> int:
        path = self._path(name)
        return path.stat().st_size if path.is_file() else 0

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"


def _line(row: dict[str, Any]) -> bytes:
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str, separators=(",", ":"))
    return text.encode() + b"\n"
