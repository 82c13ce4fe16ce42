"""A number as the digits that enumerate every combination of some choices."""

from __future__ import annotations


def digits(index: int, base: int, count: int) -> tuple[list[int], int]:
    """`count` digits of `index` to `base`, the least significant first, and what is left of it."""
    found = []
    for _ in range(count):
        index, digit = divmod(index, base)
        found.append(digit)
    return found, index
