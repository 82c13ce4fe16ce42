"""A few rows of every class, as few-shot training sets are made."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from trainer.errors import DataError
from trainer.prompts.base import Cursor, OpenTable, Prompts, Table

if TYPE_CHECKING:
    from trainer.types import Group, Prompt

_MOST_ROWS = 200_000


class FewShot(Prompts):
    """`shots` training rows of each value of the column `by`, drawn once by `seed`; the same rows
    come back every epoch. Held-out prompts are those of the source. A class with fewer rows gives
    what it has."""

    source: Prompts
    """Where the rows come from: a source of rows such as `files`, `hub` or `synthetic/...`."""
    by: str | None = "answer"
    """Column with the class; null draws `shots` rows of all."""
    shots: int = Field(4, gt=0)
    seed: int = 0

    @field_validator("source")
    @classmethod
    def _has_rows(cls, value: Prompts) -> Prompts:
        if not isinstance(value, Table):
            raise ValueError(f"needs a source of rows, {value.name()} has none of its own")
        return value

    def stream(self, seed: int) -> FewShotStream:
        return FewShotStream(self.rows, self.items(), seed)

    def heldout(self, limit: int | None = None) -> Sequence[Prompt]:
        return self.source.heldout(limit)

    def columns(self) -> set[str]:
        return self.source.columns()

    @property
    def rows(self) -> OpenTable:
        """The source's rows, read once."""
        return self.source.opened  # type: ignore[attr-defined]

    def items(self) -> list[int]:
        """The training items that were drawn, by number."""
        rows = self.rows
        if rows.size > _MOST_ROWS:
            raise DataError(
                f"prompts: few_shot looks at every row, and {self.source.name()} has {rows.size}; "
                f"set prompts.source.limit (or .problems) to {_MOST_ROWS} or less"
            )
        order = list(range(rows.size))
        random.Random(self.seed).shuffle(order)
        if self.by is None:
            return sorted(order[: self.shots])
        classes: dict[str, list[int]] = defaultdict(list)
        for item in order:
            row = rows.rows[rows.index(item)]
            if self.by not in row:
                raise DataError(
                    f"prompts.by: {self.source.name()} has no column {self.by!r} in every row; "
                    f"columns: {', '.join(row)}"
                )
            classes[str(row[self.by])].append(item)
        return sorted(item for items in classes.values() for item in items[: self.shots])


class FewShotStream:
    def __init__(self, rows: OpenTable, items: list[int], seed: int):
        self._rows, self._items, self._seed = rows, items, seed
        self._cursor = Cursor(len(items), str(seed))

    def __next__(self) -> Prompt:
        serial = self._cursor.position
        place, epoch = next(self._cursor)
        return self._rows.prompt(self._items[place], seed=self._seed, epoch=epoch, serial=serial)

    def observe(self, group: Group) -> None:
        """The rows do not depend on what happens."""

    def state_dict(self) -> dict[str, Any]:
        return self._cursor.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cursor.load_state_dict(state)
