"""The record of a run as rows: `metrics timings rollouts evaluations` with the ending `.jsonl`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from trainer.monitors.base import Monitor, prompt_text

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.types import Group, Rollout


class Jsonl(Monitor):
    """`metrics.jsonl` holds one row per step and only what the recipe decides: two runs of one
    recipe give the same bytes. Wall-clock figures go to `timings.jsonl`. Rows are on the disk when
    a call returns. A number that is not finite is written as null.
    """

    rollouts_every: int = 1
    """Steps between those whose rollouts are written; 0 writes none."""

    _folder: Path = PrivateAttr()

    @asynccontextmanager
    async def open(self, context: Context, recipe: dict[str, Any]) -> AsyncIterator[None]:
        self._folder = context.folder
        if not context.resuming:
            for name in ("metrics", "timings", "rollouts", "evaluations"):
                self._path(name).unlink(missing_ok=True)
        yield

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        self._append("metrics", [{"step": step} | report])
        self._append("timings", [{"step": step} | timing])

    def rollouts(self, step: int, groups: list[Group]) -> None:
        if self.rollouts_every and step % self.rollouts_every == 0:
            self._append("rollouts", (row for group in groups for row in _rows(step, group)))

    def evaluation(self, step: int, table: dict[str, Any]) -> None:
        self._append("evaluations", [table | {"step": step}])

    def _append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        # Opened anew for each step: `truncate_after` may replace the file between two steps.
        with self._path(name).open("a", encoding="utf-8") as file:
            file.writelines(_line(row) for row in rows)
            file.flush()
            os.fsync(file.fileno())

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"


def _rows(step: int, group: Group) -> Iterable[dict[str, Any]]:
    question = prompt_text(group.prompt.messages)
    for member, rollout in enumerate(group.rollouts):
        score = rollout.score
        row: dict[str, Any] = {
            "step": step,
            "group": group.prompt.serial,
            "member": member,
            "id": group.prompt.id,
            "task": group.prompt.task,
            "prompt": question,
            "answer": group.prompt.answer,
            "reply": rollout.reply,
            "reward": score.value if score else None,
            "parts": score.parts if score else {},
            "status": rollout.status,
            "scored": score.status if score else None,
            "length": len(rollout.completion),
        }
        if score and score.reason:
            row["reason"] = score.reason
        if len(rollout.spans) > 2:
            row["turns"] = _turns(rollout)
        yield row


def _turns(rollout: Rollout) -> list[dict[str, Any]]:
    return [
        {"parent": span.parent, "author": span.author, "text": span.message}
        for span in rollout.spans[1:]
    ]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(_finite(row), sort_keys=True, ensure_ascii=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
