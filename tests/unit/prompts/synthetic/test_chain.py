"""Sums worked out line by line; the labels are checked by a second way of reading the lines."""

from __future__ import annotations

import random
import re

from trainer.prompts.synthetic.chain import Chain


def true(line: str) -> bool:
    left, right = line.split("=")
    return sum(map(int, left.split("+"))) == int(right)


def drawn(chain: Chain, count: int) -> list[dict]:
    stream = chain.stream(0)
    return [next(stream).meta for _ in range(count)]


def test_every_label_says_whether_its_line_is_true() -> None:
    rows = drawn(Chain(terms=4, teacher_error=0.5, idle=0.2), 300)
    for row in rows:
        *lines, last = row["steps"]
        stated = re.fullmatch(r"<answer>(\d+)</answer>", last)
        assert stated is not None
        right = [*map(true, lines), int(stated[1]) == sum(row["numbers"])]
        assert [bool(label) for label in row["labels"]] == right
        sums = [line for line in lines if "+" in line]
        assert len(sums) == 3
        assert stated[1] == sums[-1].split("=")[1]
    wrong = sum(0 in row["labels"] for row in rows) / len(rows)
    assert 0.4 < wrong < 0.6
    idle = sum("+" not in line for row in rows for line in row["steps"][:-1]) / len(rows)
    assert 0.6 < idle < 1.4


def test_a_careful_teacher_is_right_and_brief() -> None:
    for row in drawn(Chain(teacher_error=0, idle=0), 50):
        assert len(row["steps"]) == 3
        assert all(row["labels"])


def test_who_stops_before_the_answer_is_wrong_at_the_end() -> None:
    rows = drawn(Chain(teacher_error=0, quits=0.5), 200)
    early = [row for row in rows if "answer" not in row["steps"][-1]]
    assert 70 < len(early) < 130
    for row in rows:
        assert row["labels"] == [1] * (len(row["labels"]) - 1) + [int(row not in early)]
        assert len(row["labels"]) == len(row["steps"]) > 0


def test_the_problem_stays_and_the_solution_is_drawn_anew() -> None:
    chain = Chain(max_value=2, terms=2, holdout=2)
    row = chain.rows()[5]
    assert row == {"question": "2+1=", "answer": "3", "numbers": [2, 1]}
    one, other = (chain.drawn(row, random.Random(seed)) for seed in (1, 2))
    assert one["steps"] != other["steps"]
    held = {prompt.meta["question"] for prompt in chain.heldout()}
    assert not held & {row["question"] for row in drawn(chain, 40)}
    assert {"meta.steps", "meta.labels"} <= chain.columns()
