"""Answers by the content of their question: in memory, or in a file that processes share."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import ConfigError

KEPT = 100_000
"""Answers in memory; the one that was used longest ago goes first."""
_BUSY_SECONDS = 30.0


class Memory(Protocol):
    def get(self, key: str) -> str | None: ...

    def put(self, key: str, answer: str) -> None: ...


def content_key(content: dict[str, Any]) -> str:
    """The same for equal contents, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


@contextmanager
def open_memory(where: str) -> Iterator[Memory | None]:
    """`memory`, `none` (gives None), or a file. Raises ConfigError for a file that is no cache."""
    if where == "none":
        yield None
    elif where == "memory":
        yield InMemory()
    else:
        with closing(_connect(Path(where).expanduser())) as connection:
            yield OnDisk(connection)


class InMemory:
    def __init__(self, kept: int = KEPT):
        self._kept = kept
        self._answers: OrderedDict[str, str] = OrderedDict()

    def get(self, key: str) -> str | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def put(self, key: str, answer: str) -> None:
        self._answers[key] = answer
        if len(self._answers) > self._kept:
            self._answers.popitem(last=False)


class OnDisk:
    """A table of an SQLite file; each answer is there as soon as `put` returns."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def get(self, key: str) -> str | None:
        query = "SELECT answer FROM answers WHERE key = ?"
        row = self._connection.execute(query, (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, key: str, answer: str) -> None:
        # SQLite has no text for half a surrogate pair
        text = answer.encode("utf-8", errors="replace").decode()
        self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"server.cache: {str(path)!r} cannot be opened: {error}") from error
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
        )
        connection.execute("SELECT key, answer FROM answers LIMIT 1").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(
            f"server.cache: {str(path)!r} is no cache of answers ({error}); name another file, or "
            "remove this one"
        ) from error
    return connection
