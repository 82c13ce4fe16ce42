"""Values of a data row by the name of their column; a dot looks inside a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def inside(row: Mapping[str, Any], name: str) -> Any:
    """`row[name]`, or `row["a"]["b"]` for `a.b`; None if there is no such thing."""
    if name in row:
        return row[name]
    first, _, rest = name.partition(".")
    found = row.get(first)
    return inside(found, rest) if rest and isinstance(found, Mapping) else None


def has(row: Mapping[str, Any], name: str) -> bool:
    """Whether `inside` has something to find, be it None."""
    first, _, rest = name.partition(".")
    found = row.get(first)
    return name in row or bool(rest and isinstance(found, Mapping) and has(found, rest))
