"""Facts of a data row, and the share of them that is stated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = ("facts", "visual_key_info")
_INFO = re.compile(r"<info([0-9]{1,4})>(.*?)</info\1>", re.DOTALL)


def listed_facts(row: Mapping[str, Any]) -> list[str]:
    """Of the column `facts` or `visual_key_info`: a list, or `<info1>fact</info1><info2>...`,
    which ends at the first number that is missing."""
    held = next((row[name] for name in _COLUMNS if row.get(name)), [])
    if isinstance(held, str):
        return in_order(held)
    return [str(fact) for fact in held]


def in_order(text: str) -> list[str]:
    """What `<info1>`, `<info2>`, ... hold, up to the first that is missing."""
    found = {int(number): content.strip() for number, content in _INFO.findall(text)}
    numbers = range(1, len(found) + 1)
    ends = next((number for number in numbers if number not in found), len(found) + 1)
    return [found[number] for number in range(1, ends)]


def share(stated: Sequence[float], eps: float) -> float:
    """sum b / (n + eps); 0 of nothing."""
    return sum(stated) / (len(stated) + eps) if stated else 0.0
