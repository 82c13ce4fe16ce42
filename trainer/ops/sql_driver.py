"""One SQL query on one fresh sqlite database; inside of the sandbox this file is the script.

Standard library only.
"""

from __future__ import annotations

import json
import os
import sqlite3
from typing import Any


def main(request: dict[str, Any]) -> None:
    """Makes the database (`schema`, a script, or `file`, read-only), runs `query`, a single
    statement, and writes its rows, or `{"error": text}`, to descriptor 3;
    `{"broken": text}` for a schema that fails."""
    if request["file"]:
        address = f"file:{request['file']}?mode=ro&immutable=1"
        database = sqlite3.connect(address, uri=True)
    else:
        database = sqlite3.connect(":memory:")
        try:
            database.executescript(request["schema"])
        except (sqlite3.Error, sqlite3.Warning) as error:
            _write({"broken": f"{type(error).__name__}: {error}"[:300]})
            return
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        cursor = database.execute(request["query"])
        rows = cursor.fetchmany(request["most"] + 1)
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError, MemoryError) as error:
        _write({"error": f"{type(error).__name__}: {error}"[:300]})
        return
    if cursor.description is None:
        _write({"error": "not a query: it returns no rows"})
    elif len(rows) > request["most"]:
        _write({"error": f"more than {request['most']} rows"})
    else:
        _write({"rows": [[_plain(value) for value in row] for row in rows]})


def _plain(value: Any) -> Any:
    return {"blob": value.hex()} if isinstance(value, bytes) else value


def _write(message: Any) -> None:
    data = json.dumps(message).encode()
    while data:
        data = data[os.write(3, data) :]


if __name__ == "__main__":
    main(REQUEST)  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
