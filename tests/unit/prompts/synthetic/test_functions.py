"""Each description's program passes its tests, and a careless teacher's does not."""

from __future__ import annotations

from collections import Counter

import pytest

from trainer.ops.code_tests import cases
from trainer.prompts.synthetic.functions import Functions


def passes(program: str, tests: list[str]) -> bool:
    scope: dict = {}
    exec(program, scope)
    return all(case.passed(scope[case.name](*case.arguments), 0.0) for case in cases(tests))


def test_a_row_by_hand():
    row = Functions(arguments=(1, 2)).rows()[0 + 3 * 1 + 24 * (2 + 3 * 0)]  # add 3, times 2
    assert row["question"] == "add 3, times 2\n"
    assert row["program"] == "def f(x):return (x+3)*2"
    assert row["tests"] == ["assert f(1) == 8", "assert f(2) == 10"]
    assert row["level"] == 1


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_right_program_passes(steps):
    rows = Functions(steps=steps).rows()
    for index in range(0, len(rows), 1 + len(rows) // 300):
        assert passes(rows[index]["program"], rows[index]["tests"])


def test_a_careless_teacher():
    stream = Functions(teacher_error=0.6).stream(0)
    found = Counter()
    for _ in range(600):
        row = next(stream).meta
        wrong = row["demonstration"] != row["program"]
        found[bool(row["level"]), wrong] += 1
        if wrong and row["level"]:
            assert row["demonstration"] == row["program"].replace("return (", "return ").replace(
                ")*", "*"
            )
    for level in (False, True):
        share = found[level, True] / (found[level, True] + found[level, False])
        assert 0.5 < share < 0.7
    careful = Functions(teacher_error=0).stream(0)
    assert all(
        passes(r["demonstration"], r["tests"]) for r in (next(careful).meta for _ in range(50))
    )
