"""Questions about small tables, each with its database and the query that answers it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from pydantic import Field

from trainer.prompts.base import Made, Row, Table

_TABLES = ("pets", "cars")
_COUNT = "how many"
_WANTED = ("name", "age", "size", _COUNT)
_CONDITIONS = ("age", "size")
_SIGNS = {"over": ">", "under": "<", "of": "="}
_ORDERS = {"": "", " up": " order by {}", " down": " order by {} desc"}
_NUMBERS = range(1, 9)  # of values from 0 to 9
_ASKED = [*((wanted, order) for wanted in _WANTED[:-1] for order in _ORDERS), (_COUNT, "")]


class Queries(Table):
    """Columns: question, answer (the right query), schema (a script that makes the database),
    parts, demonstration.

    `name of pets, age over 4, down` asks for
    `select name from pets where age>4 order by age desc`. The rows of the database are drawn with
    the problem; the right query finds some of them, never none or all. `demonstration` is what a
    careless teacher writes, drawn anew each epoch: one part of the query is another one's.
    """

    entries: int = Field(8, ge=4, le=26)
    """Rows of a table."""
    holdout: int | float = Field(0.2, ge=0)
    """Problems kept out of training: a share or a count."""
    teacher_error: float = Field(0.6, ge=0, le=1)
    """Share of demonstrations with a mistake."""

    def rows(self) -> Sequence[Row]:
        kinds = (_TABLES, _ASKED, _CONDITIONS, _SIGNS, _NUMBERS)
        return Made(math.prod(map(len, kinds)), self._row)

    def drawn(self, row: Row, rng: random.Random) -> Row:
        parts = list(row["parts"])
        if rng.random() < self.teacher_error:
            kinds = {1: _WANTED, 2: _CONDITIONS, 3: [*_SIGNS], 4: _NUMBERS, 5: [*_ORDERS]}
            place = rng.randint(1, 4 if parts[1] == _COUNT else 5)
            parts[place] = rng.choice([one for one in kinds[place] if one != parts[place]])
        return row | {"demonstration": _query(parts)}

    def _row(self, index: int) -> Row:
        seed, parts = index, []
        for kinds in (_TABLES, _ASKED, _CONDITIONS, [*_SIGNS], _NUMBERS):
            index, place = divmod(index, len(kinds))
            parts.append(kinds[place])
        table, (wanted, order), column, sign, number = parts
        parts = [table, wanted, column, sign, number, order]
        question = f"{wanted} of {table}, {column} {sign} {number}"
        return {
            "question": f"{question}{',' if order else ''}{order}\n",
            "answer": _query(parts),
            "schema": self._schema(table, column, sign, number, random.Random(seed)),
            "parts": parts,
        }

    def _schema(self, table: str, column: str, sign: str, number: int, rng: random.Random) -> str:
        holds = {"over": int.__gt__, "under": int.__lt__, "of": int.__eq__}[sign]
        while True:
            names = rng.sample("abcdefghijklmnopqrstuvwxyz", self.entries)
            values = [{c: rng.randrange(10) for c in _CONDITIONS} for _ in names]
            if 0 < sum(holds(value[column], number) for value in values) < self.entries:
                break
        rows = ",".join(
            f"('{name}',{value['age']},{value['size']})"
            for name, value in zip(names, values, strict=True)
        )
        made = f"create table {table} (name text, age int, size int)"
        return f"{made};insert into {table} values {rows};"


def _query(parts: Sequence) -> str:
    table, wanted, column, sign, number, order = parts
    what = "count(*)" if wanted == _COUNT else wanted
    order = "" if wanted == _COUNT else _ORDERS[order].format(column)
    return f"select {what} from {table} where {column}{_SIGNS[sign]}{number}{order}"
