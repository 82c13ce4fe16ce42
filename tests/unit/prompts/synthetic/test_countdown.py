from __future__ import annotations

import re


def value(expression):
    return eval(expression)


def test_every_problem_can_be_solved_with_its_numbers(build):
    stream = build("synthetic/countdown").stream(0)
    for _ in range(200):
        prompt = next(stream)
        meta = prompt.meta
        assert value(prompt.answer) == meta["target"]
        assert sorted(map(int, re.findall(r"\d+", prompt.answer))) == sorted(meta["numbers"])
        assert 1 <= meta["target"] <= 100
        assert len(meta["numbers"]) == meta["level"]
        numbers = " ".join(map(str, meta["numbers"]))
        assert meta["question"] == f"use {numbers} to make {meta['target']}="


def test_no_problem_is_in_both_splits(build):
    source = build({"type": "synthetic/countdown", "count": [2, 2], "max_number": 5})
    stream = source.stream(0)

    def content(prompt):
        return (*sorted(prompt.meta["numbers"]), prompt.meta["target"])

    trained = {content(next(stream)) for _ in range(500)}
    held = {content(prompt) for prompt in source.heldout()}
    assert held
    assert not held & trained


def test_the_teacher_uses_the_numbers_and_errs_as_often_as_told(build):
    stream = build({"type": "synthetic/countdown", "teacher_error": 0.5}).stream(0)
    wrong = 0
    for _ in range(300):
        meta = next(stream).meta
        said = re.fullmatch(r"<think></think><answer>(.*)</answer>", meta["demonstration"])[1]
        assert sorted(map(int, re.findall(r"\d+", said))) == sorted(meta["numbers"])
        wrong += value(said) != meta["target"]
    assert 110 < wrong < 180


def test_resume(build, resumes):
    resumes(build("synthetic/countdown"), 17)
    resumes(build({"type": "synthetic/countdown", "problems": 5}), 7)
