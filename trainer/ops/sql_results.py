"""Result sets of queries, and whether two of them are the same."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = tuple[Any, ...]


class BrokenDatabase(Exception):
    """The row's schema does not run, whatever the query."""


_QUOTED = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.S
)


def read_rows(data: bytes) -> list[Row]:
    """Undoes `sql_driver`. Raises ValueError with the query's error, or for other bytes, and
    `BrokenDatabase`."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("no result came back") from None
    if isinstance(told, dict) and "broken" in told:
        raise BrokenDatabase(f"the row's schema fails: {told['broken']}")
    if not isinstance(told, dict) or not isinstance(told.get("rows"), list):
        raise ValueError(str(told.get("error", told) if isinstance(told, dict) else told)[:300])
    rows = told["rows"]
    if not all(isinstance(row, list) for row in rows):
        raise ValueError("no result came back")
    return [tuple(_cell(value) for value in row) for row in rows]


def as_rows(rows: Sequence[Any]) -> list[Row]:
    """Rows that a data set wrote down."""
    return [
        tuple(_cell(v) for v in row) if isinstance(row, list | tuple) else (row,) for row in rows
    ]


def is_ordered(query: str) -> bool:
    """Whether the outmost SELECT has an ORDER BY: one outside of brackets, strings, comments."""
    depth, text = 0, _QUOTED.sub(" ", query)
    for token in re.finditer(r"[()]|\border\s+by\b", text, re.I):
        if token[0] in "()":
            depth += 1 if token[0] == "(" else -1
        elif depth == 0:
            return True
    return False


def same_rows(given: Sequence[Row], right: Sequence[Row], *, ordered: bool, bag: bool) -> bool:
    """Equal row for row; in any order unless `ordered`; as sets, so that repeats do not count,
    unless `bag`. Floats to nine significant digits; names of columns do not count."""
    if ordered:
        return list(given) == list(right)
    return Counter(given) == Counter(right) if bag else set(given) == set(right)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else str(value)
    if value is None or isinstance(value, int | str):
        return value
    return json.dumps(value, sort_keys=True)[:1000]
