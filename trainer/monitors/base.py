"""Contract of `monitors:`: where numbers go. Also the row files that are the record of a run."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.plugin import Plugin

if TYPE_CHECKING:
    from trainer.context import Context
    from trainer.types import Group


@dataclass(frozen=True, slots=True)
class Tracing:
    """What a monitor wants to know of the tokens and pictures of a step."""

    every: int
    """Steps between those that are traced."""
    groups: int
    """Most groups of a step."""
    image_side: int
    """Most pixels of the longer side of a picture."""


class Monitor(Plugin):
    """Opened on rank 0 only. Keys of a report are `family/name`, values float, int or str.

    `report` holds only what the recipe decides (equal in every repetition of a run); `timing`
    holds wall-clock figures: seconds by phase, tokens per second, memory.
    """

    family: ClassVar[str] = "trainer.monitors"

    @asynccontextmanager
    async def open(self, context: Context, recipe: dict[str, Any]) -> AsyncIterator[None]:
        """`recipe`: the resolved recipe, as saved."""
        yield

    def log(self, step: int, report: dict[str, Any], timing: dict[str, float]) -> None:
        """After every step."""

    def rollouts(self, step: int, groups: list[Group]) -> None:
        """The scored groups of a step, also the dropped ones."""

    @property
    def tracing(self) -> Tracing | None:
        """What `traces` shall be given; None for nothing. Read on every process."""
        return None

    def traces(self, step: int, traces: list[dict[str, Any]]) -> None:
        """Before `rollouts`, if `tracing` asks for it: a row per group, {group: serial, pictures:
        [{hash, width, height, data}], rollouts: [{spans: [{span, ends, logprob, advantage, ...}]}]}
        as `trainer.tracing` makes them, packed as `trainer.ops.traces` says. `gold`: boxes of a row
        without an answer; `spaces`: columns of the row that name a space of coordinates;
        `dropped`: the group left before the update, without advantages."""

    def evaluation(self, step: int, table: dict[str, Any]) -> None:
        """After every evaluation. `table` is what `trainer.evaluate.measure` returns: step, name,
        sampled and greedy {mean, low, high, n} (greedy may be None), "pass@k" and "maj@k"
        {k: {...}}, parts {name: {sampled, greedy}}, examples [{id, prompt, answer, sampled, greedy,
        reward}]."""

    def note(self, text: str) -> None:
        """A line for people: what is being done now."""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a jsonl file, in order; none if there is no file. A last line that a crash cut
    off is left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def truncate_after(folder: Path, step: int) -> None:
    """Removes rows with a larger `step` from every jsonl file in `folder`, and cut-off last lines.

    A resumed run logs these steps again; without this they would stand twice.
    """
    for path in folder.glob("*.jsonl"):
        whole = path.read_bytes()
        kept = [
            line
            for line in whole.splitlines(keepends=True)
            if line.endswith(b"\n") and json.loads(line).get("step", 0) <= step
        ]
        if (text := b"".join(kept)) != whole:
            replacement = path.with_suffix(".jsonl.tmp")
            with replacement.open("wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            replacement.replace(path)


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Text of the last user message; images show as [image]."""
    users = [message for message in messages if message["role"] == "user"]
    content = (users or list(messages))[-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(p["text"] if p["type"] == "text" else f"[{p['type']}]" for p in content)


def evaluation_figures(table: Mapping[str, Any]) -> dict[str, float]:
    """An evaluation table as scalars: `evaluation/sampled_mean`, `evaluation/pass@4`, ..."""
    figures = {
        f"evaluation/{kind}_{figure}": table[kind][figure]
        for kind in ("sampled", "greedy")
        if table[kind]
        for figure in ("mean", "low", "high")
    }
    for name, kinds in table.get("parts", {}).items():
        for kind, interval in kinds.items():
            if interval:
                figures[f"evaluation/{name}/{kind}_mean"] = interval["mean"]
    for kind in ("pass@k", "maj@k", "best@k", "vote@k"):
        for k, interval in table.get(kind, {}).items():
            figures[f"evaluation/{kind.removesuffix('k')}{k}"] = interval["mean"]
    return figures
