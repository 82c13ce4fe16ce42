"""`cohort score`: a reward on recorded completions, so that it can be debugged before any run."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trainer.config import Scoring
from trainer.errors import DataError
from trainer.ops.text import text_of
from trainer.rewards.base import Reward
from trainer.scoring import Scorer
from trainer.types import Group, Prompt, Rollout, Span

KEYS = frozenset({"prompt", "messages", "completion", "completion_ids", "answer", "task", "group"})
"""Keys with a meaning of their own; `meta` and all others are columns of the data row."""


@dataclass(slots=True)
class Recorded:
    """Rows that are scored together."""

    group: Group
    shared: dict[str, Any]
    """What every row of the group must agree on."""
    lines: list[int] = field(default_factory=list)
    """Line of each rollout, from 1."""


async def score_file(
    reward: Reward, path: Path, scoring: Scoring | None = None, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Scores a JSON-lines file and returns one row per completion, in the order of the file:
    `{"line", "id", "completion", "reward", "parts", "status", "reason"}`, `reward` None where it
    could not be scored.

    Input rows: `prompt` (text) or `messages`; `completion` (text, a list of texts, or chat
    messages); and as the reward needs them `completion_ids`, `answer`, `task`, `meta`, `images`
    (paths beside the file), any other column. Rows with the same `group` are scored as one group.
    Faults are reported row by row and never stop the file. Raises DataError for bad rows, naming
    line and key.
    """
    groups = list(read_groups(path))
    config = (scoring or Scoring()).model_copy(update={"fault_budget": 1.0})
    rows = []
    async with Scorer.open(reward, config, seed=seed, total_steps=1) as scorer:
        everything = await asyncio.gather(*(scorer.score_group(r.group, step=0) for r in groups))
        for recorded, scores in zip(groups, everything, strict=True):
            for line, rollout, score in zip(
                recorded.lines, recorded.group.rollouts, scores, strict=True
            ):
                row = {
                    "line": line,
                    "id": recorded.group.prompt.id,
                    "completion": rollout.reply,
                    "reward": score.value,
                    "parts": score.parts,
                    "status": score.status.value,
                    "reason": score.reason,
                }
                rows.append(row | rollout.meta)
    return sorted(rows, key=lambda row: row["line"])


def summarize_scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`{"rows", "scored", "mean" (None if nothing was scored), "parts" {name: mean}, "status"
    {status: count}}`."""
    values = [row["reward"] for row in rows if row["reward"] is not None]
    parts: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["parts"].items():
            if value is not None:
                parts.setdefault(name, []).append(value)
    return {
        "rows": len(rows),
        "scored": len(values),
        "mean": sum(values) / len(values) if values else None,
        "parts": {name: sum(found) / len(found) for name, found in parts.items()},
        "status": dict(Counter(row["status"] for row in rows)),
    }


def score_table(rows: list[dict[str, Any]], *, limit: int = 50) -> Table:
    """For people: the first `limit` rows and the summary in the footer."""
    summary = summarize_scores(rows)
    names = list(dict.fromkeys(name for row in rows for name in row["parts"]))
    statuses = ", ".join(f"{count} {status}" for status, count in summary["status"].items())
    table = Table(show_footer=True)
    table.add_column("line", justify="right")
    table.add_column("completion", f"{summary['scored']} of {summary['rows']} scored", max_width=40)
    table.add_column("reward", _shown(summary["mean"]), justify="right")
    for name in names:
        table.add_column(name, _shown(summary["parts"].get(name)), justify="right")
    table.add_column("status", statuses)
    table.add_column("reason", overflow="fold")
    for row in rows[:limit]:
        ending = " ".join(row["completion"].split())[-38:]
        parts = [_shown(row["parts"].get(name)) for name in names]
        cells = [str(row["line"]), ending, _shown(row["reward"]), *parts]
        table.add_row(*map(Text, [*cells, row["status"], row["reason"]]))
    if len(rows) > limit:
        table.caption = f"{len(rows) - limit} more rows are not shown"
    return table


def read_groups(path: Path) -> Iterator[Recorded]:
    """The groups of the file, by their first row. Raises DataError."""
    groups: dict[str, Recorded] = {}
    for line, row in _rows(path):
        where = f"{path}:{line}"
        replies, ids = _completions(row, where)
        shared = {key: row.get(key) for key in ("prompt", "messages", "answer", "task")}
        key = (
            f"group {json.dumps(row['group'])}" if row.get("group") is not None else f"line {line}"
        )
        if key not in groups:
            prompt = _prompt(row, where, path.parent, serial=len(groups))
            groups[key] = Recorded(Group(prompt, []), shared)
        recorded = groups[key]
        if differing := [name for name in shared if shared[name] != recorded.shared[name]]:
            raise DataError(
                f"{where}: {differing[0]}: differs from line {recorded.lines[0]} of the same "
                "group; rows of a group answer one prompt"
            )
        for reply, tokens in zip(replies, ids, strict=True):
            recorded.group.rollouts.append(_rollout(reply, tokens))
            recorded.lines.append(line)
    if not groups:
        raise DataError(f"{path}: no rows; expected one JSON object per line")
    yield from groups.values()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
        yield number, row


def _prompt(row: dict[str, Any], where: str, folder: Path, serial: int) -> Prompt:
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise DataError(f"{where}: meta: expected an object, got {type(meta).__name__}")
    columns = {key: value for key, value in row.items() if key not in KEYS | {"meta"}}
    if isinstance(row.get("task"), str | None):
        return Prompt(
            id=str(row.get("id", where)),
            messages=_with_images(_messages(row, where), row, where, folder),
            answer=row.get("answer"),
            task=row.get("task"),
            meta=columns | meta,
            serial=serial,
        )
    raise DataError(f"{where}: task: expected a text, got {row['task']!r}")


def _messages(row: dict[str, Any], where: str) -> tuple[dict[str, Any], ...]:
    key = "messages" if "messages" in row else "prompt"
    given = row.get(key, "")
    if isinstance(given, str):
        return ({"role": "user", "content": given},)
    if not (isinstance(given, list) and given) or not all(
        isinstance(m, dict) and {"role", "content"} <= m.keys() for m in given
    ):
        raise DataError(
            f'{where}: {key}: expected a text or a list of {{"role": ..., "content": ...}}'
        )
    return tuple(given)


def _with_images(
    messages: tuple[dict[str, Any], ...], row: dict[str, Any], where: str, folder: Path
) -> tuple[dict[str, Any], ...]:
    """Puts the pictures of `images` (or `image`) in front of the last message."""
    paths = row.get("images", row.get("image"))
    if paths is None:
        return messages
    parts = []
    for name in paths if isinstance(paths, list) else [paths]:
        if not isinstance(name, str):
            raise DataError(f"{where}: images: expected paths, got {type(name).__name__}")
        parts.append({"type": "image", "image": _open_image(folder / name, where)})
    last = messages[-1]
    content = last["content"]
    text = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return (*messages[:-1], last | {"content": [*parts, *text]})


def _open_image(path: Path, where: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise DataError(f"{where}: images: no file {path}") from error
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{where}: images: {path} is no readable image: {error}") from error


def _completions(row: dict[str, Any], where: str) -> tuple[list[str], list[list[int]]]:
    """Texts, and the token ids of each ([] where the row has none)."""
    if "completion" not in row:
        raise DataError(f"{where}: completion: missing; add the text to score")
    given, ids = row["completion"], row.get("completion_ids")
    if given == []:
        raise DataError(f"{where}: completion: an empty list; give one text or more")
    several = isinstance(given, list) and all(isinstance(item, str) for item in given)
    if several:
        texts = given
    elif isinstance(given, str):
        texts = [given]
    elif isinstance(given, list) and all(isinstance(m, dict) and "content" in m for m in given):
        texts = [text_of(given[-1]["content"])]
    else:
        raise DataError(
            f"{where}: completion: expected a text, a list of texts or chat messages, got "
            f"{json.dumps(given)[:60]}"
        )
    if ids is None:
        return texts, [[] for _ in texts]
    listed = ids if several else [ids]
    if not isinstance(listed, list) or len(listed) != len(texts) or not all(map(_is_ids, listed)):
        raise DataError(f"{where}: completion_ids: expected one list of integers per completion")
    return texts, listed


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int for token in value)


def _rollout(reply: str, tokens: list[int]) -> Rollout:
    n = len(tokens)
    question = Span(None, "user", "data", "", [], [], [], [])
    answer = Span(0, "assistant", "policy", reply, tokens, [True] * n, [0.0] * n, [0] * n)
    return Rollout(spans=[question, answer])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
