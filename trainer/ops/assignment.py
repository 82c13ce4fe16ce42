"""One-to-one matching of rows and columns. Plain Python: worker processes start fast, and the
tables are small (a hundred boxes against a hundred)."""

from __future__ import annotations

import math
from collections.abc import Sequence

Pair = tuple[int, int]


def best_pairs(gain: Sequence[Sequence[float]]) -> list[Pair]:
    """The pairs (row, column), min(rows, columns) of them, with the largest sum of `gain`.

    Shortest augmenting paths (the Hungarian method), O(n^2 m). `gain` is finite, and may be
    negative; [] or empty rows give [].
    """
    if not gain or not gain[0]:
        return []
    if len(gain) > len(gain[0]):
        flipped = best_pairs([list(column) for column in zip(*gain, strict=True)])
        return sorted((row, column) for column, row in flipped)
    rows, columns = len(gain), len(gain[0])
    over_row, over_column = [0.0] * (rows + 1), [0.0] * (columns + 1)
    owner = [0] * (columns + 1)  # row of each column, counted from 1; column 0 is the one at work
    for row in range(1, rows + 1):
        owner[0], at = row, 0
        least, came = [math.inf] * (columns + 1), [0] * (columns + 1)
        used = [False] * (columns + 1)
        while owner[at]:
            used[at] = True
            here, step, following = owner[at], math.inf, 0
            line, price = gain[here - 1], over_row[here]
            for column in range(1, columns + 1):
                if used[column]:
                    continue
                cost = -line[column - 1] - price - over_column[column]
                if cost < least[column]:
                    least[column], came[column] = cost, at
                if least[column] < step:
                    step, following = least[column], column
            for column in range(columns + 1):
                if used[column]:
                    over_row[owner[column]] += step
                    over_column[column] -= step
                else:
                    least[column] -= step
            at = following
        while at:
            owner[at] = owner[came[at]]
            at = came[at]
    return sorted((owner[c] - 1, c - 1) for c in range(1, columns + 1) if owner[c])


def greedy_pairs(
    gain: Sequence[Sequence[float]], least: float, *, later: bool = False
) -> list[Pair]:
    """Each row in order takes the free column with the largest gain, if that is at least `least`.
    Of equal ones the first, or the last with `later`."""
    taken: set[int] = set()
    pairs = []
    for row, line in enumerate(gain):
        free = [column for column in range(len(line)) if column not in taken]
        if later:
            free.reverse()
        column = max(free, key=lambda c: line[c], default=None)
        if column is not None and line[column] >= least:
            taken.add(column)
            pairs.append((row, column))
    return pairs


def best_first_pairs(gain: Sequence[Sequence[float]], least: float) -> list[Pair]:
    """The largest gain of all, then the largest of what is left, down to `least`; of equal ones
    the first row, then the first column."""
    order = sorted(
        (-value, row, column)
        for row, line in enumerate(gain)
        for column, value in enumerate(line)
        if value >= least
    )
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for _, row, column in order:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return pairs
