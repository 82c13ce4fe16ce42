from __future__ import annotations

import re

import pytest
from pydantic import ValidationError


def test_the_problems_are_a_fixed_set_split_exactly(build):
    source = build("synthetic/arithmetic")
    held = {p.meta["question"] for p in source.heldout()}
    stream = source.stream(0)
    trained = {next(stream).meta["question"] for _ in range(800)}
    assert (len(held), len(trained), held & trained) == (200, 800, set())
    assert len(held | trained) == 1000


def test_answers_are_right(build):
    stream = build(
        {"type": "synthetic/arithmetic", "operators": ["+", "-"], "terms": 4, "max_value": 12}
    ).stream(0)
    for _ in range(50):
        prompt = next(stream)
        (message,) = prompt.messages
        assert prompt.answer == str(eval(message["content"].removesuffix("=")))
        assert re.fullmatch(r"\d+([+-]\d+){3}=", message["content"])


def test_level_counts_running_totals_of_two_digits(build):
    rows = build("synthetic/arithmetic").rows()
    levels = {row["question"]: row["level"] for row in rows}
    assert [levels[q] for q in ("1+2+3=", "1+2+9=", "9+9+9=")] == [0, 1, 2]


def test_a_perfect_teacher_writes_the_format_of_the_task(build):
    stream = build({"type": "synthetic/arithmetic", "teacher_error": 0}).stream(0)
    for _ in range(50):
        prompt = next(stream)
        a, b, _c = prompt.meta["numbers"]
        expected = f"<think>{a}+{b}={a + b:02d}</think><answer>{prompt.answer}</answer>"
        assert prompt.meta["demonstration"] == expected


def test_a_careless_teacher_errs_as_often_as_told(build):
    stream = build("synthetic/arithmetic").stream(0)
    wrong = [
        f"<answer>{p.answer}</answer>" not in p.meta["demonstration"]
        for p in (next(stream) for _ in range(800))
    ]
    assert 0.53 < sum(wrong) / 800 < 0.65  # 0.6, a little less as an error of -1 at 0 is none


def test_a_wrong_step_is_carried_on(build):
    stream = build({"type": "synthetic/arithmetic", "teacher_error": 1}).stream(0)
    steps = []
    for _ in range(200):
        meta = next(stream).meta
        said, answer = map(int, re.findall(r"=(\d+)<.*<answer>(\d+)<", meta["demonstration"])[0])
        a, b, c = meta["numbers"]
        steps.append((said == a + b, answer == said + c))
    assert steps.count((False, True)) > 70
    assert steps.count((True, False)) > 70
    assert steps.count((False, False)) == 0


def test_demonstrations_differ_between_epochs_and_repeat_with_the_seed(build):
    source = build({"type": "synthetic/arithmetic", "terms": 2, "max_value": 3, "holdout": 0})

    def epochs(seed):
        stream = source.stream(seed)
        both = [[next(stream) for _ in range(16)] for _ in range(2)]
        return [{p.id: p.meta["demonstration"] for p in epoch} for epoch in both]

    first, second = epochs(0)
    assert first.keys() == second.keys()
    assert sum(first[i] != second[i] for i in first) >= 4
    assert epochs(0) == [first, second]
    assert epochs(1)[0] != first


def test_resume_across_epochs(build, resumes):
    source = build({"type": "synthetic/arithmetic", "terms": 2, "max_value": 3})
    for n in (0, 12, 13, 14, 40):
        resumes(source, n)


@pytest.mark.parametrize("operators", [["+", "*"], [], ["+", "+"]])
def test_operators_that_make_no_sense_are_refused(build, operators):
    with pytest.raises(ValidationError, match="operators"):
        build({"type": "synthetic/arithmetic", "operators": operators})
