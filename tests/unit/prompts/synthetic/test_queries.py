"""Each question's query finds rows in its database; the mistakes of the teacher are queries too."""

from __future__ import annotations

import random
import sqlite3

from trainer.prompts.synthetic.queries import Queries


def found(row: dict, query: str) -> list[tuple]:
    database = sqlite3.connect(":memory:")
    database.executescript(row["schema"])
    return database.execute(query).fetchall()


def test_the_right_query_finds_some_rows_and_never_all():
    rows = Queries().rows()
    assert len(rows) == 2 * 10 * 2 * 3 * 8
    assert len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        result = found(row, row["answer"])
        count = result[0][0] if "count" in row["answer"] else len(result)
        assert 0 < count < 8


def test_a_question_by_hand():
    row = next(r for r in Queries().rows() if r["question"] == "name of pets, age over 4, down\n")
    assert row["answer"] == "select name from pets where age>4 order by age desc"
    ages = dict(found(row, "select name, age from pets"))
    names = [name for (name,) in found(row, row["answer"])]
    assert set(names) == {name for name, age in ages.items() if age > 4}
    assert [ages[name] for name in names] == sorted((ages[n] for n in names), reverse=True)


def test_a_careless_teacher_changes_one_part():
    source = Queries(teacher_error=1.0)
    rng = random.Random(0)
    for index in range(0, 960, 7):
        row = source.rows()[index]
        drawn = source.drawn(row, rng)["demonstration"]
        assert drawn != row["answer"]
        found(row, drawn)  # it runs
    careful = Queries(teacher_error=0.0)
    assert careful.drawn(row, rng)["demonstration"] == row["answer"]
